"""The frames of a video that a picture is made of, in order and as samples spread over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from midway_hub.video import FrameReader
from midway_hub.video.reader import BaseReader

BATCH = 4


class Clip:
    """Every k-th frame of a video.

    Args:
        video: An open video.
        every: The k.

    Attributes:
        indices: Numbers of the frames in the video.
        fps: Frames per second.
        notes: What users should know of the video: `note`, where it was cut off.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, video: FrameReader, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self._video, self._every = video, every
        self.indices = list(range(0, len(video), every))
        self.fps = video.fps / every
        cut = video.index.cut if isinstance(video, BaseReader) else None
        self.notes = {"note": f"only the first {len(video)} frames can be read: {cut}"} if cut else {}

    def frames(self) -> Iterator[np.ndarray]:
        """Yield all frames, (H, W, 3) uint8; a few are in memory at a time."""
        for _, frames in self._video.iterate(0, len(self._video), self._every, BATCH):
            yield from frames

    def sample_frames(self, count: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield at most `count` frames spread over the clip, with their numbers in the video."""
        for position in _spread(len(self.indices), count):
            number = self.indices[position]
            yield number, self._video.get_frames([number])[0]


def _spread(total: int, count: int) -> list[int]:
    return sorted(set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()))
