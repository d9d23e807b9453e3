"""Middlebury's .flo: a magic number, width and height, then x and y of every pixel, little endian."""

from __future__ import annotations

import struct

import numpy as np

from midway_hub.flow_io.field import FlowField

MAGIC = b"PIEH"  # the float 202021.25
HEADER = struct.Struct("<4sii")
UNKNOWN, UNKNOWN_FROM = 1e10, 1e9  # Middlebury's own conventions


def decode(data: bytes) -> FlowField:
    """Read flow; numbers above 1e9 mean that it is not known.

    Raises:
        ValueError: Not a .flo, or one that is too short or too long.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise ValueError(f"no .flo: it starts with {data[:4]!r}, wanted {MAGIC!r} and two sizes")
    _, width, height = HEADER.unpack_from(data)
    if width < 1 or height < 1:
        raise ValueError(f"its header says {width}×{height} pixels (width×height)")
    wanted = HEADER.size + 8 * width * height
    if len(data) != wanted:
        raise ValueError(f"{width}×{height} pixels of flow are {wanted} bytes, it has {len(data)}")
    flow = np.frombuffer(data, "<f4", offset=HEADER.size).reshape(height, width, 2)
    return FlowField.of(flow, (np.abs(flow) <= UNKNOWN_FROM).all(axis=2))


def encode(field: FlowField) -> bytes:
    """Write flow, 1e10 where it is not known.

    Raises:
        ValueError: Flow so large that it would mean "not known".
    """
    largest = float(np.abs(field.flow).max())
    if largest > UNKNOWN_FROM:
        raise ValueError(f"a .flo takes flow above {UNKNOWN_FROM:g} pixels for unknown, got {largest:g}")
    height, width = field.valid.shape
    return HEADER.pack(MAGIC, width, height) + field.with_unknown(UNKNOWN).astype("<f4").tobytes()
