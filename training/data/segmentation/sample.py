"""What a segmentation data set gives: a picture and a class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class LabelledImage:
    """A picture with labels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, class numbers from 0; 255 where no class counts (`midway_hub.heads.IGNORE`).
        name: What tables and pictures call it.
    """

    image: np.ndarray
    labels: np.ndarray
    name: str


class SegmentationDataset(Protocol):
    """Labelled pictures, by number; opening one does not read another.

    Attributes:
        name: Such as `bdd100k/val`.
        classes: Names of the classes, in the order of their labels.
        palette: Red, green and blue of every class.
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledImage:
        """Read a picture and its labels, already in class numbers.

        Raises:
            SampleError: A file is missing or broken, or holds a label that is no class; the message names it.
        """
        ...

    def missing(self) -> list[str]:
        """Return the files that the data set should have and that are not there, without opening any."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the data, JSON-able: name, number of pictures, a hash of the list of files."""
        ...
