"""Writing a video: H.264 in an .mp4 that plays everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from midway_hub._durable import whole_file
from midway_hub.video.errors import VideoError

CODEC = "libx264"
BT709 = 1  # FFmpeg's number of the colours of HD video: matrix, primaries and transfer alike


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    crf: int = 18,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write frames as they come; the file appears when it is whole.

    H.264 halves the colours' resolution, so odd sides are padded by one pixel, right and bottom, that repeats the edge.

    Args:
        path: An .mp4; an existing file is replaced.
        frames: (H, W, 3) uint8, RGB, all of one size.
        fps: Frames per second.
        crf: Quality of x264 from 0 (lossless) to 51 (worst).
        progress: Called after each frame with the number of frames written.

    Returns:
        The number of frames.

    Raises:
        ValueError: Not an .mp4, no frames, frames of other shapes or types or of changing size, a number out of range.
        VideoError: This PyAV cannot write H.264.
        OSError: It cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: videos are written as .mp4, got the ending {path.suffix!r}")
    if not 0 < fps < 1000:
        raise ValueError(f"fps must be above 0 and below 1000, got {fps}")
    if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= 51:
        raise ValueError(f"crf must be a whole number from 0 to 51, got {crf!r}")
    with whole_file(path) as beside:
        return _encode(beside, frames, Fraction(fps).limit_denominator(100_000), crf, progress)


def _encode(path: Path, frames: Iterable[np.ndarray], rate: Fraction, crf: int, progress: Callable[[int], None]) -> int:
    shape: tuple[int, ...] | None = None
    done = 0
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        for frame in frames:
            _check(frame, done, shape)
            if shape is None:
                shape = frame.shape
                stream = _stream(container, rate, crf, shape)
            picture = av.VideoFrame.from_ndarray(_even(frame), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.pts, picture.time_base = done, 1 / rate
            container.mux(stream.encode(picture))
            done += 1
            progress(done)
        if shape is None:
            raise ValueError("there are no frames to write")
        container.mux(stream.encode())
    return done


def _stream(container: Any, rate: Fraction, crf: int, shape: tuple[int, ...]) -> Any:
    try:
        stream = container.add_stream(CODEC, rate=rate, options={"crf": str(crf)})
    except av.codec.codec.UnknownCodecError:
        raise VideoError(
            f"this PyAV has no {CODEC}; the wheels of PyPI have it: pip install --force-reinstall av"
        ) from None
    stream.height, stream.width, stream.pix_fmt = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream


def _check(frame: np.ndarray, number: int, shape: tuple[int, ...] | None) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        seen = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"frame {number} is {seen}; wanted a uint8 array of shape (height, width, 3)")
    if shape is not None and frame.shape != shape:
        raise ValueError(
            f"frame {number} is {frame.shape[0]}×{frame.shape[1]} pixels (height×width), the frames before it "
            f"{shape[0]}×{shape[1]}; a video has one size"
        )


def _even(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row and column where their number is odd."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


__all__ = ["write_video"]
