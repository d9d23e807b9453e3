"""The list of a video's frames: their times, and where decoding has to start to reach each of them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np

NO_TIME = -(1 << 63)
"""The time of a packet that has none."""
STILL = "still"
"""The format of a file that is a single picture."""


def ticks(time: int | None) -> int:
    """A PyAV time, `NO_TIME` where there is none."""
    return NO_TIME if time is None else time


@dataclass(frozen=True, eq=False)
class Packets:
    """The complete packets of one stream, in decode order.

    Attributes:
        pts: (n,) int64 presentation times in ticks, or `NO_TIME`.
        dts: (n,) int64 decode times in ticks, or `NO_TIME`.
        size: (n,) int64 bytes.
        key: (n,) bool, the container says that decoding may start here.
        discard: (n,) bool, needed for decoding and not shown (edit list).
    """

    pts: np.ndarray
    dts: np.ndarray
    size: np.ndarray
    key: np.ndarray
    discard: np.ndarray

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def leading(self) -> np.ndarray:
        """(n,) bool, shown before the key frame that precedes them in decode order (open GOP)."""
        last_key = np.maximum.accumulate(np.where(self.key, np.arange(len(self)), 0))
        return self.pts < self.pts[last_key]


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Everything that reading frames by number has to know about a file.

    Attributes:
        path: The file.
        stream: Index of the video stream within the container.
        is_default_stream: It is the one that FFmpeg picks.
        format: FFmpeg's name of the container format, or `STILL`.
        codec: FFmpeg's name of the codec.
        pixel_format: FFmpeg's name of the stored pictures' format.
        width, height: Pixels as displayed.
        matrix: Signs (a, b, c, d) of the display matrix: a stored point (x, y) is shown at (ax + cy, bx + dy).
        time_base: Seconds per tick.
        pts: (frames,) int64 ticks at which the frames are shown, increasing.
        end: Tick at which the last frame leaves the screen.
        packets: The packets; None where their times are no guide, so that frames can only be counted from the start.
        only_idr: Every key frame resets the decoder (H.264; True for other codecs).
        announced: Frames that the container announces; None where it does not say.
        cut: Why frames are missing at the end; None for a whole file.
    """

    path: Path
    stream: int
    is_default_stream: bool
    format: str
    codec: str
    pixel_format: str
    width: int
    height: int
    matrix: tuple[int, int, int, int]
    time_base: Fraction
    pts: np.ndarray
    end: int
    packets: Packets | None
    only_idr: bool
    announced: int | None
    cut: str | None

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def timestamps(self) -> np.ndarray:
        """(frames,) float64 seconds since the first frame."""
        seconds = (self.pts - self.pts[0]) * self.time_base.numerator / self.time_base.denominator
        seconds.flags.writeable = False
        return seconds

    @property
    def still(self) -> bool:
        """The file is a single picture."""
        return self.format == STILL

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return float((self.end - int(self.pts[0])) * self.time_base)

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which the stored pictures are turned for display."""
        a, b = self.matrix[:2]
        return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]

    @property
    def mirrored(self) -> bool:
        """The display matrix also flips the picture."""
        a, b, c, d = self.matrix
        return a * d - b * c < 0

    @cached_property
    def decoded_pts(self) -> np.ndarray:
        """(m,) increasing ticks of all pictures that come out: `pts`, and what an edit list hides before them."""
        if self.packets is None:
            return self.pts
        hidden = self.packets.pts[self.packets.discard]
        return np.concatenate([np.unique(hidden[hidden < self.pts[0]]), self.pts])

    @cached_property
    def ordinals(self) -> np.ndarray:
        """(frames,) place of each frame's packet in decode order."""
        if self.packets is None:
            return np.arange(len(self))
        shown = np.flatnonzero(~self.packets.discard)
        order = shown[np.argsort(self.packets.pts[shown], kind="stable")]
        return order[np.searchsorted(self.packets.pts[order], self.pts)]

    @cached_property
    def entries(self) -> np.ndarray:
        """(frames,) place of the packet at which decoding has to start for each frame.

        The last key frame that is neither decoded nor shown after the frame: starting at a later one would leave the
        leading pictures of an open GOP without what they refer to.
        """
        entries = np.zeros(len(self), np.int64)
        if self.packets is None:
            return entries
        keys = np.flatnonzero(self.packets.key)
        if not len(keys):
            return entries
        slot = np.searchsorted(keys, self.ordinals, side="right") - 1
        while len(late := np.flatnonzero((slot >= 0) & (self.packets.pts[keys[slot]] > self.pts))):
            slot[late] -= 1
        return np.where(slot >= 0, keys[slot], 0)

    def entry_before(self, entry: int) -> int | None:
        """The entry point before one, None at the first."""
        if self.packets is None or entry == 0:
            return None
        earlier = np.flatnonzero(self.packets.key[:entry])
        return int(earlier[-1]) if len(earlier) else 0

    def settled_at(self, number: int) -> int:
        """The last tick, in display order, of the pictures that are decoded up to a frame, itself included."""
        if self.packets is None:
            return int(self.pts[number])
        return int(self.packets.pts[self.entries[number] : self.ordinals[number] + 1].max())
