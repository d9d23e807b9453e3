"""The subset of FlyingThings3D, whose layout is another than that of the full data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet, chosen_of
from midway_hub.training.data.flow.numbering import numbered
from midway_hub.training.data.flow.pair_list import PairFiles

DIRECTIONS = {"into_future": 1, "into_past": -1}


def subset_pairs(
    root: Path,
    *,
    split: str,
    look: str,
    cameras: Sequence[str] = ("left",),
    directions: Sequence[str] = tuple(DIRECTIONS),
) -> Iterator[PairFiles]:
    """List a pair for each flow file: frames are numbered on across sequences, and only flows tell them apart.

    Some published flow holds NaN; those pixels are not valid, and the pairs stay.

    Args:
        root: Folder of the data set.
        split: train or val.
        look: The pass, clean or final.
        cameras: Of left and right.
        directions: Of into_future and into_past.
    """
    chosen = chosen_of("cameras", cameras, ("left", "right")), chosen_of("directions", directions, DIRECTIONS)
    for camera, direction in product(*chosen):
        images, flows = f"{split}/image_{look}/{camera}", f"{split}/flow/{camera}/{direction}"
        hidden = f"{split}/flow_occlusions/{camera}/{direction}"
        with_hidden = (root / hidden).is_dir()
        for start in sorted(numbered(root / flows, r"(\d{7})\.flo")):
            yield PairFiles(
                f"{images}/{start:07d}.png",
                f"{images}/{start + DIRECTIONS[direction]:07d}.png",
                f"{flows}/{start:07d}.flo",
                name=f"{camera}/{direction}/{start:07d}",
                occlusion=f"{hidden}/{start:07d}.png" if with_hidden else "",
            )


SETS = {
    f"things_subset/{split}/{look}": FlowSet(
        f"FlyingThings3D subset, {'training' if split == 'train' else 'validation'}, {look} pass",
        f"{split}/image_{look}/left/NNNNNNN.png and {split}/flow/left/into_{{future,past}}/NNNNNNN.flo",
        partial(subset_pairs, split=split, look=look),
    )
    for split in ("train", "val")
    for look in ("clean", "final")
}
