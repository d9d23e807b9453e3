"""Two frames of one video: what every source of training data gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class FramePair:
    """Two frames of one video, the earlier one first.

    Attributes:
        first: frame x, (H, W, 3) uint8 RGB.
        second: frame y, (H, W, 3) uint8 RGB.
        name: the file or world the frames are from.
        frames: numbers of the two frames in it.
        seconds: time from the first frame to the second.
    """

    first: np.ndarray
    second: np.ndarray
    name: str
    frames: tuple[int, int]
    seconds: float


@runtime_checkable
class PairSource(Protocol):
    """A numbered collection of files or worlds that frame pairs are taken from."""

    def __len__(self) -> int:
        """Returns: the files or worlds of one pass."""

    def pairs(self, index: int, count: int, generator: np.random.Generator) -> list[FramePair]:
        """Open one item and take frame pairs from it.

        Args:
            index: which item, from 0.
            count: how many pairs.
            generator: the only randomness the choice may use.

        Returns:
            `count` pairs, in the order they were drawn.

        Raises:
            SampleError: The item cannot give the pairs.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Returns: what identifies the data, as plain values; written into the run's data.json."""


class SampleError(RuntimeError):
    """An item cannot give the frame pairs asked of it.

    Args:
        file: The file.
        reason: What is wrong with it.
        always: No pair of the item can be had, whichever frames are drawn, so that trying again is of no use.
    """

    def __init__(self, file: str, reason: str, always: bool = False) -> None:
        super().__init__(file, reason, always)  # all of them as arguments, so that it survives pickling
        self.file = file
        self.reason = reason
        self.always = always

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
