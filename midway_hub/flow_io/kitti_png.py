"""KITTI's flow: 16-bit RGB PNG with x and y in 1/64 pixel around 2^15, and in blue whether they are known.

FFmpeg (PyAV) reads and writes it; Pillow would read it as 8 bit, without a word.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from midway_hub.flow_io.field import FlowField

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IHDR = struct.Struct(">4x4sIIBBBBB")
CHUNK = struct.Struct(">I4s")
PIXEL_BYTES = 6
PIECE = 2**16  # bytes of a file that are unpacked at a time
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps between them, of the seven passes of an interlaced PNG."""
ZERO, STEPS = 2**15, 64
LEAST, LARGEST = -ZERO / STEPS, (ZERO - 1) / STEPS
FORMAT, TRANSPARENT = "rgb48be", "rgba64be"
COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGB and alpha"}


def decode(data: bytes) -> FlowField:
    """Read flow, exact to the bit.

    Raises:
        ValueError: Not a PNG, not of 16-bit RGB, or a damaged one.
    """
    height, width, interlaced = _checked_header(data)
    _check_rows(data, height, width, interlaced)
    try:
        decoder = av.CodecContext.create("png", "r")
        decoder.options, decoder.thread_count = {"err_detect": "crccheck+explode"}, 1
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"the PNG is damaged or cut short: {error.strerror}") from None
    # A colour that tRNS names as transparent adds an alpha channel to the same numbers.
    if (
        len(frames) != 1
        or frames[0].format.name not in (FORMAT, TRANSPARENT)
        or (frames[0].height, frames[0].width) != (height, width)
    ):
        raise ValueError("the PNG is damaged: it does not hold the picture that its header announces")
    raw = frames[0].to_ndarray()[..., :3]
    return FlowField.of((raw[..., :2].astype(np.float32) - ZERO) / STEPS, raw[..., 2])


def encode(field: FlowField) -> bytes:
    """Write flow, rounded to 1/64 pixel, and 0 in all channels where it is not known.

    Raises:
        ValueError: Flow outside -512 to 511.98 pixels, which the format cannot hold.
    """
    steps = np.rint(field.flow.astype(np.float64) * STEPS) + ZERO
    if steps.min() < 0 or steps.max() > 2 * ZERO - 1:
        low, high = field.flow.min(), field.flow.max()
        raise ValueError(
            f"KITTI's PNG holds flow from {LEAST:g} to {LARGEST:g} pixels, got {low:g} to {high:g}; "
            "mark what lies outside as not valid, or write .flo"
        )
    raw = np.concatenate([steps, np.ones_like(steps[..., :1])], axis=2) * field.valid[..., None]
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = field.valid.shape
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = FORMAT, Fraction(1), 1
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(raw.astype(np.uint16)), format=FORMAT)
    return b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))


def _checked_header(data: bytes) -> tuple[int, int, bool]:
    """Height, width, and whether it is interlaced, of a 16-bit RGB PNG."""
    if not data.startswith(SIGNATURE) or len(data) < len(SIGNATURE) + IHDR.size:
        raise ValueError(f"no PNG: it starts with {data[:8]!r}")
    _, width, height, depth, colour, _, _, interlaced = IHDR.unpack_from(data, len(SIGNATURE))
    if (depth, colour) != (16, 2):
        raise ValueError(
            f"it is a PNG of {depth} bit {COLOURS.get(colour, 'unknown colours')}; KITTI's flow is 16 bit RGB. "
            "Is it a picture, or was it written again by a program that keeps 8 bits?"
        )
    return height, width, bool(interlaced)


def _check_rows(data: bytes, height: int, width: int, interlaced: bool) -> None:
    """Refuse a picture of other than the rows that its header announces: FFmpeg leaves missing ones empty."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    wanted = sum(rows * (1 + PIXEL_BYTES * columns) for columns, rows in sides if columns > 0 and rows > 0)
    held = 0
    for part in _unpacked(data):
        held += part
        if held > wanted:
            break
    if held != wanted:
        seen = f"more than {wanted:,}" if held > wanted else f"{held:,} of {wanted:,}"
        raise ValueError(
            f"the PNG is damaged or cut short: its header announces {height}×{width} pixels (height×width), "
            f"and it holds {seen} bytes of them"
        )


def _unpacked(data: bytes) -> Iterator[int]:
    """Yield how many bytes of pixels there are, of a piece of the file at a time."""
    stream, place = zlib.decompressobj(), len(SIGNATURE)
    while place + CHUNK.size <= len(data):
        length, kind = CHUNK.unpack_from(data, place)
        start, place = place + CHUNK.size, place + CHUNK.size + length + 4
        if kind != b"IDAT":
            continue
        for piece in range(start, min(start + length, len(data)), PIECE):
            try:
                yield len(stream.decompress(data[piece : min(piece + PIECE, start + length)]))
            except zlib.error as error:
                raise ValueError(f"the PNG is damaged: {error}") from None
