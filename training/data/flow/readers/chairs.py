"""FlyingChairs (Dosovitskiy et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import numbered
from midway_hub.training.data.flow.pair_list import PairFiles

SPLIT_FILES = ("FlyingChairs_train_val.txt", "chairs_split.txt")
LAYOUT = f"data/NNNNN_img1.ppm, data/NNNNN_img2.ppm, data/NNNNN_flow.flo and {' or '.join(SPLIT_FILES)}"


def chairs_pairs(root: Path, *, part: str) -> Iterator[PairFiles]:
    """List the pairs whose line in the split file is `part`: 1 for training, 2 for validation.

    Raises:
        FileNotFoundError: There are pairs, but no split file.
        ValueError: The split file does not fit the pairs.
    """
    kinds = ("img1.ppm", "img2.ppm", "flow.flo")
    numbers = sorted({number for kind in kinds for number in numbered(root / "data", rf"(\d+)_{kind}")})
    if not numbers:
        return
    split = _read_split(root, numbers[-1])
    for number in numbers:
        if split[number - 1] == part:
            first, second, flow = (f"data/{number:05d}_{kind}" for kind in kinds)
            yield PairFiles(first, second, flow, name=f"{number:05d}")


def _read_split(root: Path, last: int) -> list[str]:
    found = [root / name for name in SPLIT_FILES if (root / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{root} has pairs, but neither {' nor '.join(SPLIT_FILES)}; download one from the data set's page into it"
        )
    split = found[0].read_text(encoding="utf-8", errors="replace").split()
    if len(split) < last or set(split) - {"1", "2"}:
        raise ValueError(
            f"{found[0]} has {len(split)} lines ({', '.join(sorted(set(split))[:4])}); wanted 1 (training) or "
            f"2 (validation) for each of the pairs 1 to {last}"
        )
    return split


SETS = {
    "chairs/train": FlowSet("FlyingChairs, training", LAYOUT, partial(chairs_pairs, part="1"), expected=22232),
    "chairs/val": FlowSet("FlyingChairs, validation", LAYOUT, partial(chairs_pairs, part="2"), expected=640),
}
