"""The two forms of a pack, behind one pair of contracts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from midway_hub.training.data.packs.jpeg_tar import JpegTarWriter, decode_jpeg
from midway_hub.training.data.packs.layout import PackedVideo, PackFolder, StoredFile
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.training.data.packs.short_gop import ShortGopWriter, decode_gop


class ShardWriter(Protocol):
    """Writes the videos of one shard, one after the other."""

    def begin(self, name: str, size: tuple[int, int], run: int) -> None:
        """Start a video: the width and height of its frames, and how many neighbours make a run."""

    def add(self, picture: np.ndarray, number: int, seconds: float) -> int:
        """Append a frame, its number and time in the original; returns the bytes written for it so far."""
        ...

    def end(self, first_row: int) -> tuple[PackedVideo, np.ndarray]:
        """Finish the video; returns its entry and rows, which will start at `first_row` of the shard's."""
        ...

    def discard(self) -> None:
        """Forget what was added since the last `end`."""

    def finish(self) -> dict[str, StoredFile]:
        """Put the shard's files in their places; returns them by name."""
        ...

    def close(self) -> None:
        """Remove what was not finished."""


@dataclass(frozen=True)
class Form:
    """How frames are written and read.

    Attributes:
        writer: Makes the writer of a shard.
        decode: The stored bytes of a frame and of those it builds upon -> (H, W, 3) uint8.
    """

    writer: Callable[[PackFolder, int, PackSettings], ShardWriter]
    decode: Callable[[Sequence[bytes], PackedVideo], np.ndarray]


FORMS = {"jpeg": Form(JpegTarWriter, decode_jpeg), "h264": Form(ShortGopWriter, decode_gop)}


def key_interval(settings: PackSettings) -> int:
    """Frames from one that can be decoded alone to the next."""
    return settings.gop if settings.form == "h264" else 1
