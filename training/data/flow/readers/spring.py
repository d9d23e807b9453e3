"""Spring (Mehl et al., 2023), whose flow is on a grid twice as fine as its frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet, chosen_of
from midway_hub.training.data.flow.numbering import folders, numbered, starts_of_pairs
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles

DIRECTIONS = {"FW": 1, "BW": -1}
SUBVAL = "0041"
SPLITS = {"train": ("training", 19852), "subtrain": ("training without a scene", 19472), "subval": ("one scene", 380)}


def spring_pairs(
    root: Path,
    *,
    split: str,
    cameras: Sequence[str] = ("left", "right"),
    directions: Sequence[str] = tuple(DIRECTIONS),
) -> Iterator[PairFiles]:
    """List pairs by scene, camera, direction and frame.

    Args:
        root: Folder of the data set.
        split: train, subtrain, or subval for scene 0041.
        cameras: Of left and right.
        directions: Of FW (to the next frame) and BW (to the one before).
    """
    scenes = (
        scene for scene in folders(root / "train") if split == "train" or (scene == SUBVAL) == (split == "subval")
    )
    chosen = chosen_of("cameras", cameras, ("left", "right")), chosen_of("directions", directions, DIRECTIONS)
    for scene, camera, direction in product(scenes, *chosen):
        images, flow = f"train/{scene}/frame_{camera}/frame_{camera}", f"flow_{direction}_{camera}"
        with_image = numbered(root / f"train/{scene}/frame_{camera}", rf"frame_{camera}_(\d+)\.png")
        with_flow = numbered(root / f"train/{scene}/{flow}", rf"{flow}_(\d+)\.flo5")
        towards = DIRECTIONS[direction]
        for start in starts_of_pairs(with_image, with_flow, towards=towards):
            yield PairFiles(
                f"{images}_{start:04d}.png",
                f"{images}_{start + towards:04d}.png",
                f"train/{scene}/{flow}/{flow}_{start:04d}.flo5",
                name=f"{scene}/{camera}/{direction}/{start:04d}",
                sequence=scene,
            )


SETS = {
    f"spring/{split}": FlowSet(
        f"Spring, {meaning}",
        "train/SSSS/frame_{left,right}/frame_{left,right}_NNNN.png and "
        "train/SSSS/flow_{FW,BW}_{left,right}/flow_{FW,BW}_{left,right}_NNNN.flo5"
        + (f" (scene {SUBVAL})" if split == "subval" else ""),
        partial(spring_pairs, split=split),
        FileForm(flow_scale=2),
        expected,
    )
    for split, (meaning, expected) in SPLITS.items()
}
