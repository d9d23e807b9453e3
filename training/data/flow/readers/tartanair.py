"""TartanAir (Wang et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet, chosen_of
from midway_hub.training.data.flow.numbering import folders, numbered, starts_of_pairs
from midway_hub.training.data.flow.pair_list import PairFiles

LEVELS = ("Easy", "Hard")


def tartanair_pairs(root: Path, *, levels: Sequence[str] = LEVELS, exclude_masked: bool = False) -> Iterator[PairFiles]:
    """List pairs by environment and trajectory.

    Args:
        root: Folder of the environments, each in a folder of its name twice (as the archives unpack) or once.
        levels: Of Easy and Hard.
        exclude_masked: Whether the pixels of the data set's masks (dynamic objects, occlusions) are left out.
    """
    for environment in folders(root):
        twice = f"{environment}/{environment}"
        below = twice if (root / twice).is_dir() else environment
        for level in chosen_of("levels", levels, LEVELS):
            for trajectory in folders(root / below / level):
                name = f"{environment}/{level}/{trajectory}"
                yield from _of_trajectory(root, f"{below}/{level}/{trajectory}", name, exclude_masked)


def _of_trajectory(root: Path, folder: str, sequence: str, exclude_masked: bool) -> Iterator[PairFiles]:
    images, flows = f"{folder}/image_left", f"{folder}/flow"
    with_image = numbered(root / images, r"(\d+)_left\.png")
    with_flow, with_mask = (numbered(root / flows, rf"(\d+)_\d+_{kind}\.npy") for kind in ("flow", "mask"))
    for start in starts_of_pairs(with_image, with_flow):
        between = f"{flows}/{start:06d}_{start + 1:06d}"
        mask = f"{between}_mask.npy"
        yield PairFiles(
            f"{images}/{start:06d}_left.png",
            f"{images}/{start + 1:06d}_left.png",
            f"{between}_flow.npy",
            name=f"{sequence}/{start:06d}",
            sequence=sequence,
            occlusion=mask if with_mask else "",
            invalid=mask if exclude_masked else "",
        )


SETS = {
    "tartanair/train": FlowSet(
        "TartanAir, all environments",
        "ENV/ENV/{Easy,Hard}/PNNN/image_left/NNNNNN_left.png and .../flow/NNNNNN_NNNNNN_flow.npy",
        tartanair_pairs,
        expected=306268,
    )
}
