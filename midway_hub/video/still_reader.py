"""A single picture, read as a video of one frame by the package's one reader of stills."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from midway_hub.picture_files import opened_picture, read_picture, upright_size
from midway_hub.video.errors import VideoError
from midway_hub.video.index import STILL, VideoIndex
from midway_hub.video.reader import BaseReader

if TYPE_CHECKING:
    from av.video.stream import VideoStream


class StillReader(BaseReader):
    """Reading with Pillow: turned upright as EXIF says, 16 bits scaled, grey, palettes and profiles as everywhere."""

    name = "pillow"
    package = "PIL"
    reports_damage = True

    @staticmethod
    def refusal(index: VideoIndex) -> str | None:
        return None if index.still else "it reads single pictures only"

    def _read(self, indices: Sequence[int]) -> list[np.ndarray]:
        try:
            return [read_picture(self.path) for _ in indices]
        except ValueError as error:
            raise VideoError(f"{self.path}: frame 0 cannot be decoded: {error}") from error

    def _release(self) -> None:
        """Nothing is held open."""


def index_still(path: Path, video: VideoStream, packets: int) -> VideoIndex | None:
    """List the one frame of a picture; None where the file is not a single picture that Pillow reads.

    Args:
        path: The file, in which FFmpeg sees pictures one behind the other.
        video: FFmpeg's stream of them.
        packets: How many these are.
    """
    try:
        with opened_picture(path, "picture") as (image, _):
            if packets > 1 and image.format != "MPO":  # a photograph with previews behind it
                return None
            width, height = upright_size(image)
    except ValueError:
        return None
    return VideoIndex(
        path=path,
        stream=video.index,
        is_default_stream=True,
        format=STILL,
        codec=video.codec_context.codec.canonical_name,
        pixel_format=video.codec_context.pix_fmt or "",
        width=width,
        height=height,
        matrix=(1, 0, 0, 1),
        time_base=Fraction(1, 25),
        pts=np.zeros(1, np.int64),
        end=1,
        packets=None,
        only_idr=True,
        announced=None,
        cut=None,
    )
