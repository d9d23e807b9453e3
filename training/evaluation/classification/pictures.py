"""Pictures in a folder per class, the layout of torchvision's `ImageFolder`, split for training and testing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

TRAIN, TESTS = "train", ("val", "test", "validation")

Labelled = tuple[tuple[Path, int], ...]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures of one label each.

    Attributes:
        root: Their folder.
        classes: Names of the classes; a label is a number in this list.
        train: Pictures and labels that classifiers learn from.
        test: Pictures and labels that they are measured on.
        split: Where the two come from, in words.
    """

    root: Path
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    split: str


def read_pictures(root: Path, *, test_share: float = 0.2) -> LabelledPictures:
    """Read `root/train/CLASS/*.jpg` and `root/val/CLASS/*.jpg` (or test), or `root/CLASS/*.jpg`, which is split.

    The split takes a share of every class, chosen by the files' names: more pictures later leave the others where they
    are.

    Args:
        root: The folder.
        test_share: Share that is measured on where there is no folder for it.

    Raises:
        FileNotFoundError: There is no such folder, or no folders of classes with pictures in it.
        ValueError: A share that is not between 0 and 1, one class alone, classes of the test that training lacks, or a
            class with a single picture where a share has to be split off.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"the share to measure on must lie between 0 and 1, got {test_share}")
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; wanted one folder of pictures per class in it")
    tests = [name for name in TESTS if (root / name).is_dir()]
    if (root / TRAIN).is_dir() and tests:
        classes, train = _folder(root / TRAIN)
        others, test = _folder(root / tests[0])
        unknown = sorted(set(others) - set(classes))
        if unknown:
            raise ValueError(f"{root / tests[0]} has classes that {root / TRAIN} lacks: {', '.join(unknown[:8])}")
        test = tuple((path, classes.index(others[label])) for path, label in test)
        return LabelledPictures(root, classes, train, test, f"{TRAIN}/ and {tests[0]}/")
    classes, found = _folder(root)
    chosen = {path for label in range(len(classes)) for path in _share(found, label, classes, root, test_share)}
    train = tuple(item for item in found if item[0] not in chosen)
    test = tuple(item for item in found if item[0] in chosen)
    return LabelledPictures(root, classes, train, test, f"{test_share:g} of every class by the files' names")


def _folder(root: Path) -> tuple[tuple[str, ...], Labelled]:
    classes, numbers = find_classes(str(root))  # its error names the folder
    if len(classes) < 2:
        raise ValueError(f"{root} holds the one class {classes[0]!r}; a classifier needs two folders of pictures")
    found = make_dataset(str(root), numbers, extensions=IMG_EXTENSIONS)  # its error names the classes without pictures
    return tuple(classes), tuple((Path(path), label) for path, label in found)


def _share(found: Labelled, label: int, classes: tuple[str, ...], root: Path, share: float) -> list[Path]:
    paths = [path for path, its in found if its == label]
    if len(paths) < 2:
        raise ValueError(f"{root / classes[label]} holds one picture, and one to learn from and one to test are needed")
    by_name = sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())
    return by_name[: min(max(1, round(share * len(paths))), len(paths) - 1)]
