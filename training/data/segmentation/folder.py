"""Pictures in one folder tree and label maps in another, paired by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.segmentation.classes import ClassList
from midway_hub.training.data.segmentation.encodings import Encoding, LabelError
from midway_hub.training.data.segmentation.files import read_image, read_label_map
from midway_hub.training.data.segmentation.sample import LabelledImage
from midway_hub.training.data.sources.listing import hash_files


@dataclass(frozen=True)
class LabelledFile:
    """A picture's file and its label map's, either of which may be missing.

    Attributes:
        name: What both are called: the path below their folders, without the suffixes.
        image: The picture.
        labels: The label map.
    """

    name: str
    image: str
    labels: str


class LabelledFolder:
    """A `SegmentationDataset` of files.

    Args:
        name: Such as `bdd100k/val`.
        files: The pictures and label maps.
        classes: What the labels are.
        encoding: What the values of the label maps mean.
        published: How many pictures the complete data set has, where that is known.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[LabelledFile],
        classes: ClassList,
        encoding: Encoding,
        *,
        published: int | None = None,
    ) -> None:
        self.name, self.files, self.encoding, self.published = name, tuple(files), encoding, published
        self.classes, self.palette = classes.names, classes.palette

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LabelledImage:
        item = self.files[index]
        image, raw = read_image(item.image), self.raw_labels(index)
        if image.shape[:2] != raw.shape[:2]:
            seen = " and ".join(f"{array.shape[1]}x{array.shape[0]}" for array in (raw, image))
            raise SampleError(
                item.labels, f"label map and picture have sizes {seen}; both need one size ({item.image})", always=True
            )
        try:
            return LabelledImage(image, self.encoding(raw), item.name)
        except LabelError as error:
            raise SampleError(item.labels, str(error), always=True) from error

    def raw_labels(self, index: int) -> np.ndarray:
        """Return what a label file holds, (H, W) or (H, W, 3) uint8, whatever its values are."""
        return read_label_map(self.files[index].labels, coloured=self.encoding.coloured)

    def missing(self) -> list[str]:
        return [path for item in self.files for path in (item.image, item.labels) if not Path(path).is_file()]

    def fingerprint(self) -> dict[str, Any]:
        files = [(f"{kind}/{item.name}", path) for item in self.files for kind, path in _kinds(item)]
        meaning = {self.encoding.show(value): label for value, label in sorted(self.encoding.meaning.items())}
        return {
            "name": self.name,
            "pictures": len(self.files),
            "files": hash_files(files),
            "classes": list(self.classes),
            "encoding": self.encoding.name,
            "ignored": [value for value, label in meaning.items() if label >= len(self.classes)],
        }


def find_labelled_files(
    images: Path, labels: Path, *, image_suffixes: Sequence[str], label_suffix: str
) -> list[LabelledFile]:
    """Pair the files of two folder trees that are called the same but for their suffixes.

    Args:
        images: Folder of the pictures.
        labels: Folder of the label maps.
        image_suffixes: What a picture's name ends in, such as `.jpg` or `_leftImg8bit.png`.
        label_suffix: What a label map's name ends in.

    Returns:
        One for each name that either tree has, sorted.
    """
    pictures, maps = _by_name(images, image_suffixes), _by_name(labels, [label_suffix])
    return [
        LabelledFile(
            name,
            pictures.get(name, str(images / f"{name}{image_suffixes[0]}")),
            maps.get(name, str(labels / f"{name}{label_suffix}")),
        )
        for name in sorted({*pictures, *maps})
    ]


def _by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    found = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix.lower())), None)
            if suffix is not None and not name.startswith("."):
                path = Path(parent) / name
                found[path.relative_to(folder).as_posix()[: -len(suffix)]] = str(path)
    return found


def _kinds(item: LabelledFile) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("image", item.image), ("labels", item.labels)
