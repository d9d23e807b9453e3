"""Portable float maps (FlyingThings3D): three channels of which the third is unused, rows from the bottom up."""

from __future__ import annotations

import re

import numpy as np

from midway_hub.flow_io.field import FlowField

_BETWEEN = rb"(?:\s|#[^\n]*\n)+"  # comments, as Netpbm's other forms have them
HEADER = re.compile(rb"(P[Ff])" + _BETWEEN + rb"(\d{1,9})" + _BETWEEN + rb"(\d{1,9})" + _BETWEEN + rb"([-+.\deE]+)")
AFTER = re.compile(rb"\r?\s|[ \t]*(?:#[^\n]*)?\r?\n(?:#[^\n]*\n)*")


def decode(data: bytes) -> FlowField:
    """Read flow from the first two channels, of either byte order; what is not finite is not known.

    Raises:
        ValueError: Not a .pfm, one of a single channel, or one that is too short or too long.
    """
    header = HEADER.match(data)
    if header is None:
        raise ValueError(f"no .pfm: it starts with {data[:16]!r}, wanted PF, width, height and scale")
    kind, width, height, scale = header[1], int(header[2]), int(header[3]), _scale(header[4])
    if kind == b"Pf":
        raise ValueError("it has one channel (Pf), as disparity has; flow is in the first two of three (PF)")
    # The numbers are the end of the file: so a comment after the scale is told from numbers that look like one.
    start = len(data) - 12 * width * height
    if width < 1 or height < 1 or start < header.end() or not AFTER.fullmatch(data, header.end(), start):
        wanted = header.end() + 1 + 12 * width * height
        raise ValueError(f"{width}×{height} pixels (width×height) are {wanted} bytes, it has {len(data)}")
    order = "<" if scale < 0 else ">"
    rows = np.frombuffer(data, f"{order}f4", offset=start).reshape(height, width, 3)
    return FlowField.of(rows[::-1, :, :2])


def encode(field: FlowField) -> bytes:
    """Write flow, little endian, with 0 in the third channel and NaN where it is not known."""
    height, width = field.valid.shape
    rows = np.zeros((height, width, 3), "<f4")
    rows[..., :2] = field.with_unknown(np.nan)
    return f"PF\n{width} {height}\n-1\n".encode() + rows[::-1].tobytes()


def _scale(text: bytes) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if scale == 0:
        raise ValueError(f"its scale, whose sign is the byte order, is {text!r}; wanted a number such as -1.0")
    return scale
