"""Clips made on the spot whose frames carry their number, and thumbnails to recognise real frames by."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 128, 96
BITS, COLUMNS, BLOCK, PITCH, MARGIN = 12, 4, 24, 28, 8


def numbered_frame(number: int) -> np.ndarray:
    """A moving texture under twelve black or white blocks that spell the number in binary; (96, 128, 3) uint8."""
    texture = np.random.default_rng(0).integers(60, 120, (HEIGHT, 4 * WIDTH, 3), dtype=np.uint8)
    left = 3 * number % (3 * WIDTH)
    frame = texture[:, left : left + WIDTH].copy()
    for bit in range(BITS):
        frame[_block(bit)] = 255 if number >> bit & 1 else 0
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame spells."""
    return sum(1 << bit for bit in range(BITS) if frame[_block(bit)].mean() > 128)


def numbers_of(frames: Iterable[np.ndarray]) -> list[int]:
    return [number_of(frame) for frame in frames]


def _block(bit: int) -> tuple[slice, slice]:
    row, column = divmod(bit, COLUMNS)
    top, left = MARGIN + PITCH * row, MARGIN + PITCH * column
    return slice(top, top + BLOCK), slice(left, left + BLOCK)


def write_clip(
    path: Path,
    frames: int = 60,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    pixel_format: str = "yuv420p",
    rate: int = 30,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Encode numbered frames; `times` are their presentation times in frames of `rate`."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.thread_count = 1
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number), format="rgb24")
            frame.pts = times[number] if times is not None else number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def trimmed_copy(source: Path, target: Path, first: int, rate: int = 30) -> Path:
    """Copy packets without re-encoding so that an edit list hides what comes before a frame."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        offset = round(first / rate / stream.time_base)
        packets = [packet for packet in given.demux(stream) if packet.size]
        start = max(i for i, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= offset)
        for packet in packets[start:]:
            packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
            made.mux(packet)
    return target


def packet_places(path: Path) -> list[tuple[int, int, bool]]:
    """(offset, size, key) of every video packet in the file, in decode order."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def thumbnails(frames: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Mean grey of size x size parts of RGB frames, as (size, size) uint16 in 256ths of a level."""
    for frame in frames:
        grey = frame.mean(axis=2)
        rows, columns = (np.linspace(0, n, size + 1).astype(int) for n in grey.shape)
        sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=0), columns[:-1], axis=1)
        yield np.round(256 * sums / np.outer(np.diff(rows), np.diff(columns))).astype(np.uint16)
