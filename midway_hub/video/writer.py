"""Writing a video: H.264 in an .mp4 that plays everywhere, VP9 in a .webm, or a .gif."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from midway_hub._durable import whole_file
from midway_hub.video.errors import VideoError

CODEC = "libx264"
CODECS = {".mp4": CODEC, ".webm": "libvpx-vp9", ".gif": "gif"}
VIDEO_ENDINGS = tuple(CODECS)
GIF_CLOCK, GIF_FPS = 100, 50  # a .gif counts hundredths of a second, and players slow down what is faster than two
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

    H.264 and VP9 halve the colours' resolution, so odd sides are padded by one pixel, right and bottom, that repeats
    the edge. A .gif keeps sides and edges, and shows 256 colours, chosen anew for every frame.

    Args:
        path: An .mp4, .webm or .gif; an existing file is replaced.
        frames: (H, W, 3) uint8, RGB, all of one size.
        fps: Frames per second.
        crf: Quality of x264 from 0 (lossless) to 51 (worst), and of VP9 alike; a .gif has no such choice.
        progress: Called after each frame with the number of frames written.

    Returns:
        The number of frames.

    Raises:
        ValueError: Another ending, no frames, frames of other shapes or types or of changing size, a number out of
            range.
        VideoError: This PyAV cannot write such files.
        OSError: It cannot be written.
    """
    path = Path(path)
    check_video_ending(path)
    if not 0 < fps < 1000:
        raise ValueError(f"fps must be above 0 and below 1000, got {fps}")
    if path.suffix.lower() == ".gif" and fps > GIF_FPS:
        raise ValueError(
            f"{path}: a .gif shows at most {GIF_FPS} frames per second, got {fps:g}; take every other frame"
        )
    if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= 51:
        raise ValueError(f"crf must be a whole number from 0 to 51, got {crf!r}")
    with whole_file(path) as beside:
        return _encode(beside, frames, Fraction(fps).limit_denominator(100_000), crf, progress)


def check_video_ending(path: Path) -> None:
    """Raise a ValueError for a path that `write_video` has no format for."""
    if path.suffix.lower() not in VIDEO_ENDINGS:
        raise ValueError(f"{path}: videos are written as {' '.join(VIDEO_ENDINGS)}, got the ending {path.suffix!r}")


def _encode(path: Path, frames: Iterable[np.ndarray], rate: Fraction, crf: int, progress: Callable[[int], None]) -> int:
    shape: tuple[int, ...] | None = None
    done, suffix = 0, path.suffix.lower()
    with av.open(str(path), "w", options={"movflags": "+faststart"} if suffix == ".mp4" else {}) as container:
        for frame in frames:
            _check(frame, done, shape)
            if shape is None:
                shape = frame.shape
                stream = (
                    _gif_stream(container, rate, shape) if suffix == ".gif" else _stream(container, rate, crf, shape)
                )
                convert = _palette_of_each() if suffix == ".gif" else _yuv
            picture = convert(frame)
            clock = stream.codec_context.time_base
            picture.pts, picture.time_base = round(done / rate / clock), clock
            container.mux(stream.encode(picture))
            done += 1
            progress(done)
        if shape is None:
            raise ValueError("there are no frames to write")
        container.mux(stream.encode())
    return done


def _stream(container: Any, rate: Fraction, crf: int, shape: tuple[int, ...]) -> Any:
    codec = CODECS[".webm"] if container.format.name == "webm" else CODEC
    options = {"crf": str(crf)} if codec == CODEC else {"crf": str(crf), "b": "0", "cpu-used": "4", "row-mt": "1"}
    stream = _added(container, codec, rate, options)
    stream.height, stream.width, stream.pix_fmt = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = ColorRange.MPEG
    return stream


def _gif_stream(container: Any, rate: Fraction, shape: tuple[int, ...]) -> Any:
    stream = _added(container, CODECS[".gif"], rate, {})
    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], "pal8"
    stream.codec_context.time_base = Fraction(1, GIF_CLOCK)
    return stream


def _added(container: Any, codec: str, rate: Fraction, options: dict[str, str]) -> Any:
    try:
        return container.add_stream(codec, rate=rate, options=options)
    except av.codec.codec.UnknownCodecError:
        raise VideoError(
            f"this PyAV has no {codec}; the wheels of PyPI have it: pip install --force-reinstall av"
        ) from None


def _yuv(frame: np.ndarray) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(_even(frame), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _palette_of_each() -> Callable[[np.ndarray], av.VideoFrame]:
    """Make a converter to pictures of 256 colours, by FFmpeg's filters, a frame at a time: memory stays flat."""
    graph = av.filter.Graph()
    source: Any = None

    def convert(frame: np.ndarray) -> av.VideoFrame:
        nonlocal source
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if source is None:
            source = graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, GIF_CLOCK)
            )
            split, sink = graph.add("split"), graph.add("buffersink")
            find = graph.add("palettegen", "stats_mode=single")
            use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=5")
            for upper, lower, port, entry in (
                (source, split, 0, 0),
                (split, use, 0, 0),
                (split, find, 1, 0),
                (find, use, 0, 1),
                (use, sink, 0, 0),
            ):
                upper.link_to(lower, port, entry)
            graph.configure()
        picture.time_base = Fraction(1, GIF_CLOCK)
        graph.push(picture)
        return graph.pull()

    return convert


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


__all__ = ["VIDEO_ENDINGS", "check_video_ending", "write_video"]
