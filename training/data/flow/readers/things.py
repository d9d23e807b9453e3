"""FlyingThings3D, the full data set (Mayer et al., 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet, chosen_of
from midway_hub.training.data.flow.numbering import folders, numbered, starts_of_pairs
from midway_hub.training.data.flow.pair_list import PairFiles

DIRECTIONS = {"into_future": 1, "into_past": -1}
FILE_NAMES = {"into_future": "OpticalFlowIntoFuture", "into_past": "OpticalFlowIntoPast"}
LETTERS = {"left": "L", "right": "R"}
TEST_PAIRS = 1024


def things_pairs(
    root: Path,
    *,
    folder: str,
    look: str,
    cameras: Sequence[str] = ("left",),
    directions: Sequence[str] = tuple(DIRECTIONS),
) -> Iterator[PairFiles]:
    """List pairs by direction, then sequence, then frame.

    Args:
        root: Folder of the data set.
        folder: TRAIN or TEST.
        look: The pass, clean or final.
        cameras: Of left and right.
        directions: Of into_future and into_past.
    """
    pictures, flows = Path(f"frames_{look}pass") / folder, Path("optical_flow") / folder
    sequences = sorted(
        {f"{part}/{number}" for tree in (pictures, flows) for part in "ABC" for number in folders(root / tree / part)}
    )
    chosen = chosen_of("directions", directions, DIRECTIONS), chosen_of("cameras", cameras, LETTERS)
    for direction, camera, sequence in product(*chosen, sequences):
        images, field = pictures / sequence / camera, flows / sequence / direction / camera
        name = f"{FILE_NAMES[direction]}_{{:04d}}_{LETTERS[camera]}.pfm"
        towards = DIRECTIONS[direction]
        with_flow = numbered(root / field, name.replace("{:04d}", r"(\d+)").replace(".", r"\."))
        with_image = numbered(root / images, r"(\d+)\.png")
        for start in starts_of_pairs(with_image, with_flow, towards=towards, last_has_flow=True):
            yield PairFiles(
                f"{images}/{start:04d}.png",
                f"{images}/{start + towards:04d}.png",
                f"{field}/{name.format(start)}",
                name=f"{sequence}/{camera}/{direction}/{start:04d}",
                sequence=sequence,
            )


def test1024_pairs(root: Path, *, look: str) -> list[PairFiles]:
    """List 1024 of the test pairs, evenly spread: as many as do not fit are left off the end, then every 7th is taken.

    Fewer than 1024 pairs are all taken.
    """
    pairs = list(things_pairs(root, folder="TEST", look=look))
    stride, rest = divmod(len(pairs), TEST_PAIRS)
    return pairs[: len(pairs) - rest : stride] if stride else pairs


def _layout(folder: str, look: str) -> str:
    return (
        f"frames_{look}pass/{folder}/{{A,B,C}}/NNNN/left/NNNN.png and "
        f"optical_flow/{folder}/{{A,B,C}}/NNNN/into_{{future,past}}/left/OpticalFlowInto{{Future,Past}}_NNNN_L.pfm"
    )


SETS = {
    name: flow_set
    for look in ("clean", "final")
    for name, flow_set in {
        f"things/train/{look}": FlowSet(
            f"FlyingThings3D, training, {look} pass",
            _layout("TRAIN", look),
            partial(things_pairs, folder="TRAIN", look=look),
            expected=40302,
        ),
        f"things/test/{look}": FlowSet(
            f"FlyingThings3D, test, {look} pass",
            _layout("TEST", look),
            partial(things_pairs, folder="TEST", look=look),
            expected=7866,
        ),
        f"things/test1024/{look}": FlowSet(
            f"FlyingThings3D, 1024 pairs of the test set, {look} pass",
            _layout("TEST", look),
            partial(test1024_pairs, look=look),
            expected=TEST_PAIRS,
        ),
    }.items()
}
