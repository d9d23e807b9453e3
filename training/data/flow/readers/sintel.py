"""MPI-Sintel (Butler et al., 2012), with the split of CroCo v2 into training and validation scenes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import folders, numbered, starts_of_pairs
from midway_hub.training.data.flow.pair_list import PairFiles

SUBVAL = ("temple_2", "temple_3")
SPLITS = {"train": ("training", 1041), "subtrain": ("training without two scenes", 943), "subval": ("two scenes", 98)}


def sintel_pairs(root: Path, *, split: str, look: str, exclude_masked: bool = False) -> Iterator[PairFiles]:
    """List pairs by scene.

    Args:
        root: Folder of the data set.
        split: train, subtrain, or subval for temple_2 and temple_3.
        look: The pass, clean or final.
        exclude_masked: Whether the pixels of the data set's `invalid` masks are left out; published numbers have them.
    """
    training = root / "training"
    for scene in sorted({*folders(training / look), *folders(training / "flow")}):
        if split == "train" or (scene in SUBVAL) == (split == "subval"):
            yield from _of_scene(root, scene, look, exclude_masked)


def _of_scene(root: Path, scene: str, look: str, exclude_masked: bool) -> Iterator[PairFiles]:
    images, flows = f"training/{look}/{scene}", f"training/flow/{scene}"
    hidden = f"training/occlusions/{scene}" if (root / "training/occlusions").is_dir() else ""
    invalid = f"training/invalid/{scene}" if exclude_masked else ""
    with_image, with_flow = numbered(root / images, r"frame_(\d+)\.png"), numbered(root / flows, r"frame_(\d+)\.flo")
    for start in starts_of_pairs(with_image, with_flow):
        frame = f"frame_{start:04d}"
        yield PairFiles(
            f"{images}/{frame}.png",
            f"{images}/frame_{start + 1:04d}.png",
            f"{flows}/{frame}.flo",
            name=f"{scene}/{frame}",
            sequence=scene,
            occlusion=hidden and f"{hidden}/{frame}.png",
            invalid=invalid and f"{invalid}/{frame}.png",
        )


SETS = {
    f"sintel/{split}/{look}": FlowSet(
        f"MPI-Sintel, {meaning}, {look} pass",
        f"training/{look}/SCENE/frame_NNNN.png and training/flow/SCENE/frame_NNNN.flo"
        + (f" (scenes {' and '.join(SUBVAL)})" if split == "subval" else ""),
        partial(sintel_pairs, split=split, look=look),
        expected=expected,
    )
    for split, (meaning, expected) in SPLITS.items()
    for look in ("clean", "final")
}
