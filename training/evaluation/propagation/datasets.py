"""DAVIS-2017, VIP and JHMDB as their archives unpack (spec C)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from midway_hub.training.evaluation.propagation.sequences import (
    LabelledSequence,
    SequenceSet,
    pictures_in,
    read_names,
)

DAVIS_SEQUENCES = {"val": 30, "train": 60}
DAVIS_2016_SEQUENCES = {"val": 20, "train": 30}
VIP_CLASSES = (
    *("background", "hat", "hair", "sun-glasses", "upper-clothes", "dress", "coat", "socks", "pants", "gloves"),
    *("scarf", "skirt", "torso-skin", "face", "right-arm", "left-arm", "right-leg", "left-leg", "right-shoe"),
    "left-shoe",
)
VIP_VIDEOS = 50
JHMDB_JOINTS = 15
JHMDB_VIDEOS = 268
JHMDB_TEST = "2"


def davis_sequences(root: Path, *, split: str = "val", binary: bool = False) -> SequenceSet:
    """DAVIS-2017: JPEGImages/480p/SEQUENCE/00000.jpg, Annotations/480p/SEQUENCE/00000.png, ImageSets/2017/val.txt.

    Of DAVIS-2016, whose masks are black and white, the list is ImageSets/2016/val.txt or ImageSets/480p/val.txt.

    Args:
        root: The folder that holds those.
        split: Name of the list.
        binary: Whether masks are of one object, white on black, and DAVIS-2016's list is taken where there is one.

    Raises:
        FileNotFoundError: There is no such list.
    """
    lists = root / "ImageSets"
    older = [path for path in (lists / "2016" / f"{split}.txt", lists / "480p" / f"{split}.txt") if path.is_file()]
    if binary and older:
        return _davis_2016(root, split, older[0])
    names = read_names(lists / "2017" / f"{split}.txt")
    folders = [(name, root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name) for name in names]
    expected = DAVIS_SEQUENCES.get(split, len(names))
    return _with_masks("davis", f"davis2017/{split}", folders, expected, every=True, binary=binary)


def _davis_2016(root: Path, split: str, listing: Path) -> SequenceSet:
    """The videos of a list of names, or of pairs `/JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/...` per frame."""
    lines = [line.split()[0].split("/") for line in read_names(listing)]
    names = list(dict.fromkeys(parts[-2] if len(parts) > 1 else parts[0] for parts in lines))
    folders = [(name, root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name) for name in names]
    expected = DAVIS_2016_SEQUENCES.get(split, len(names))
    return _with_masks("davis", f"davis2016/{split}", folders, expected, every=True, binary=True)


def vip_sequences(root: Path) -> SequenceSet:
    """VIP: Images/VIDEO/*.jpg, Annotations/Category_ids/VIDEO/*.png, lists/val_videos.txt.

    Args:
        root: The folder VIP_Fine, or the one above it.

    Raises:
        FileNotFoundError: There is no such list.
    """
    root = root / "VIP_Fine" if (root / "VIP_Fine").is_dir() else root
    names = read_names(root / "lists" / "val_videos.txt")
    folders = [(name, root / "Images" / name, root / "Annotations" / "Category_ids" / name) for name in names]
    return _with_masks("vip", "vip/val", folders, VIP_VIDEOS, every=False)


def jhmdb_sequences(root: Path) -> SequenceSet:
    """JHMDB: Rename_Images/ACTION/VIDEO/00001.png, joint_positions/ACTION/VIDEO/joint_positions.mat.

    The test videos of split 1 are those with a 2 in splits/ACTION_test_split1.txt; without that folder, all videos.

    Args:
        root: The folder that holds those.

    Raises:
        FileNotFoundError: There are no frames.
    """
    frames, joints, splits = (root / name for name in ("Rename_Images", "joint_positions", "splits"))
    if not frames.is_dir():
        raise FileNotFoundError(f"there is no folder {frames}; --root must be the folder of JHMDB")
    if splits.is_dir():
        names = [name for file in sorted(splits.glob("*_test_split1.txt")) for name in _test_videos(file)]
    else:
        names = sorted(path.relative_to(frames).as_posix() for path in frames.glob("*/*") if path.is_dir())
    sequences, wanted = [], []
    for name in names:
        found = pictures_in(frames / name)
        if not found:
            wanted.append(f"{frames / name}/00001.png")
        sequences.append(LabelledSequence(name, found, {0: joints / name / "joint_positions.mat"}))
    return SequenceSet("jhmdb/split1", "jhmdb", tuple(sequences), JHMDB_VIDEOS, tuple(wanted))


DATASETS: dict[str, Callable[[Path], SequenceSet]] = {
    "davis": davis_sequences,
    "vip": vip_sequences,
    "jhmdb": jhmdb_sequences,
}


def _with_masks(
    task: str, name: str, folders: list[tuple[str, Path, Path]], expected: int, *, every: bool, binary: bool = False
) -> SequenceSet:
    """List videos whose label files are called as the frames; the first frame, or every one, must have one."""
    sequences, wanted = [], []
    for title, pictures, masks in folders:
        frames = pictures_in(pictures)
        if not frames:
            wanted.append(f"{pictures}/*.jpg")
        files = [masks / f"{frame.stem}.png" for frame in frames]
        needed = {number: file for number, file in enumerate(files) if every or number == 0 or file.is_file()}
        sequences.append(LabelledSequence(title, frames, needed, binary))
    return SequenceSet(name, task, tuple(sequences), expected, tuple(wanted))


def _test_videos(file: Path) -> list[str]:
    """Return `action/video` for the lines `video.avi 2` of a list such as `brush_hair_test_split1.txt`."""
    action = file.name.removesuffix("_test_split1.txt")
    rows = [line.rsplit(maxsplit=1) for line in read_names(file)]
    return [f"{action}/{row[0].removesuffix('.avi')}" for row in rows if len(row) == 2 and row[1] == JHMDB_TEST]
