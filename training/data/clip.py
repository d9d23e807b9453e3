"""Frames of one video: what every source of training data gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class KnownFlow:
    """Where the pixels of one frame are in another one.

    Attributes:
        flow: (2, H, W) float32 pixels, x to the right, then y down.
        valid: (H, W) bool, whether that is known and the point is seen in the other frame.
    """

    flow: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class Clip:
    """Frames of one video, in the order of time.

    Attributes:
        pictures: T frames, (H, W, 3) uint8 RGB each.
        name: the file or world the frames are from.
        frames: numbers of the frames in it.
        times: seconds of the frames, counted from the first.
        flow: what the source knows of flow, by (frame, other frame), counted within the clip.
    """

    pictures: tuple[np.ndarray, ...]
    name: str
    frames: tuple[int, ...]
    times: tuple[float, ...]
    flow: Mapping[tuple[int, int], KnownFlow] = field(default_factory=dict)

    @classmethod
    def of_pair(cls, first: np.ndarray, second: np.ndarray, name: str, frames: tuple[int, int], seconds: float) -> Clip:
        """Make a clip of two frames that are so many seconds apart."""
        return cls((first, second), name, frames, (0.0, seconds))

    @property
    def first(self) -> np.ndarray:
        """The earliest frame."""
        return self.pictures[0]

    @property
    def second(self) -> np.ndarray:
        """The frame after it."""
        return self.pictures[1]

    @property
    def seconds(self) -> float:
        """Time from the first frame to the last."""
        return self.times[-1]


@runtime_checkable
class ClipSource(Protocol):
    """A numbered collection of files or worlds that clips are taken from."""

    def __len__(self) -> int:
        """Returns: the files or worlds of one pass."""

    def clips(self, index: int, count: int, generator: np.random.Generator) -> list[Clip]:
        """Open one item and take clips from it.

        Args:
            index: which item, from 0.
            count: how many clips.
            generator: the only randomness the choice may use.

        Returns:
            `count` clips, in the order they were drawn.

        Raises:
            SampleError: The item cannot give the clips.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Returns: what identifies the data, as plain values; written into the run's data.json."""


class SampleError(RuntimeError):
    """An item cannot give the frames asked of it.

    Args:
        file: The file.
        reason: What is wrong with it.
        always: Nothing of the item can be had, whichever frames are drawn, so that trying again is of no use.
    """

    def __init__(self, file: str, reason: str, always: bool = False) -> None:
        super().__init__(file, reason, always)  # all of them as arguments, so that it survives pickling
        self.file = file
        self.reason = reason
        self.always = always

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
