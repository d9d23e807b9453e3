"""Tiny copies of the layouts of the flow data sets, with random contents."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway_hub.flow_io import write_flow

SIZE = (6, 8)


class Tree:
    """Writes random files below a folder and remembers the flow in them."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        self.root, self.random = root, np.random.default_rng(seed)
        self.flows: dict[str, np.ndarray] = {}

    def picture(self, *names: str) -> None:
        for name in names:
            path = self._place(name)
            Image.fromarray(self.random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)

    def flow(self, name: str, *, sparse: bool = False, scale: int = 1) -> None:
        shape = (scale * SIZE[0], scale * SIZE[1])
        valid = self.random.random(shape) < 0.5 if sparse else np.ones(shape, dtype=bool)
        flow = np.rint(self.random.normal(0, 10, (*shape, 2)) * 64).astype(np.float32) / 64  # exact in KITTI's form
        flow[~valid] = 0
        write_flow(self._place(name), flow, valid)
        self.flows[name] = flow

    def mask(self, name: str) -> np.ndarray:
        marks = self.random.random(SIZE) < 0.3
        if name.endswith(".npy"):
            np.save(self._place(name), marks.astype(np.uint8) * 100)
        else:
            Image.fromarray(marks.astype(np.uint8) * 255).save(self._place(name))
        return marks

    def text(self, name: str, text: str) -> None:
        self._place(name).write_text(text)

    def _place(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def chairs(tree: Tree) -> None:
    for number in range(1, 6):
        tree.picture(f"data/{number:05d}_img1.ppm", f"data/{number:05d}_img2.ppm")
        tree.flow(f"data/{number:05d}_flow.flo")
    tree.text("FlyingChairs_train_val.txt", "1\n2\n1\n1\n2\n")


def things(tree: Tree) -> None:
    for folder in ("TRAIN", "TEST"):
        for sequence, frames in (("A/0000", range(6, 9)), ("C/0001", range(6, 10))):
            for camera, letter in (("left", "L"), ("right", "R")):
                for number in frames:
                    for look in ("clean", "final"):
                        tree.picture(f"frames_{look}pass/{folder}/{sequence}/{camera}/{number:04d}.png")
                    for direction, name in (("into_future", "IntoFuture"), ("into_past", "IntoPast")):
                        file = f"OpticalFlow{name}_{number:04d}_{letter}.pfm"
                        tree.flow(f"optical_flow/{folder}/{sequence}/{direction}/{camera}/{file}")


def things_subset(tree: Tree) -> None:
    for split in ("train", "val"):
        for number in range(6):
            for look in ("clean", "final"):
                tree.picture(f"{split}/image_{look}/left/{number:07d}.png")
        for number in (0, 1, 3, 4):  # frames 0 to 2 are a sequence, 3 to 5 another
            tree.flow(f"{split}/flow/left/into_future/{number:07d}.flo")
            tree.flow(f"{split}/flow/left/into_past/{number + 1:07d}.flo")


def sintel(tree: Tree) -> None:
    for scene, frames in (("alley_1", 3), ("temple_2", 4), ("temple_3", 2)):
        for number in range(1, frames + 1):
            for look in ("clean", "final"):
                tree.picture(f"training/{look}/{scene}/frame_{number:04d}.png")
            tree.mask(f"training/invalid/{scene}/frame_{number:04d}.png")
            if number < frames:
                tree.flow(f"training/flow/{scene}/frame_{number:04d}.flo")
                tree.mask(f"training/occlusions/{scene}/frame_{number:04d}.png")


def kitti2012(tree: Tree) -> None:
    kitti(tree, "colored_0", 3)


def kitti2015(tree: Tree) -> None:
    kitti(tree, "image_2", 12)


def kitti(tree: Tree, images: str, pairs: int) -> None:
    for number in range(pairs):
        tree.picture(f"training/{images}/{number:06d}_10.png", f"training/{images}/{number:06d}_11.png")
        tree.flow(f"training/flow_occ/{number:06d}_10.png", sparse=True)
        tree.flow(f"training/flow_noc/{number:06d}_10.png", sparse=True)


def hd1k(tree: Tree) -> None:
    for sequence, frames in ((0, 3), (1, 2)):
        for number in range(10, 10 + frames):
            tree.picture(f"hd1k_input/image_2/{sequence:06d}_{number:04d}.png")
            tree.flow(f"hd1k_flow_gt/flow_occ/{sequence:06d}_{number:04d}.png", sparse=True)


def spring(tree: Tree) -> None:
    pytest.importorskip("h5py")
    for scene in ("0001", "0041"):
        for camera in ("left", "right"):
            for number in (1, 2, 3):
                tree.picture(f"train/{scene}/frame_{camera}/frame_{camera}_{number:04d}.png")
            for direction, numbers in (("FW", (1, 2)), ("BW", (2, 3))):
                for number in numbers:
                    name = f"flow_{direction}_{camera}"
                    tree.flow(f"train/{scene}/{name}/{name}_{number:04d}.flo5", scale=2, sparse=True)


def tartanair(tree: Tree) -> None:
    for trajectory in ("office/office/Easy/P000", "ocean/Hard/P001"):  # the second has its name once
        for number in range(3):
            tree.picture(f"{trajectory}/image_left/{number:06d}_left.png")
        for number in range(2):
            tree.flow(f"{trajectory}/flow/{number:06d}_{number + 1:06d}_flow.npy")


def middlebury(tree: Tree) -> None:
    for sequence in ("Dimetrodon", "Venus"):
        tree.picture(*(f"other-data/{sequence}/frame{number:02d}.png" for number in (9, 10, 11)))
        tree.flow(f"other-gt-flow/{sequence}/flow10.flo", sparse=True)


def viper(tree: Tree) -> None:
    for split in ("train", "val"):
        for number in (1, 2, 3):
            tree.picture(f"{split}/img/001/001_{number:05d}.png")
            tree.flow(f"{split}/flow/001/001_{number:05d}.npz")


def folder(tree: Tree) -> None:
    for day, frames in (("monday", 3), ("friday/late", 12)):
        for number in range(frames):
            tree.picture(f"images/{day}/frame_{number}.png")
        for number, ending in zip(range(frames - 1), [".flo", ".npy", ".npz", ".pfm", ".png"] * 3, strict=False):
            tree.flow(f"flow/{day}/frame_{number}{ending}")
    tree.mask("occlusions/monday/frame_1.png")


TREES: dict[str, Callable[[Tree], None]] = {
    function.__name__: function
    for function in (
        *(chairs, things, things_subset, sintel, kitti2012, kitti2015),
        *(hd1k, spring, tartanair, middlebury, viper, folder),
    )
}


def make_tree(family: str, root: Path) -> Tree:
    """Write the tiny copy of a data set, named by the first part of the names it is built by."""
    tree = Tree(root)
    TREES[family](tree)
    return tree
