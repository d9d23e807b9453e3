"""Reading arrays of numbers from MATLAB files (version 5, as `save` writes them; MathWorks' "MAT-File Format")."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from midway_hub._regular import refuse_irregular
from midway_hub.training.data.clip import SampleError

HEADER, TAG = 128, 8
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single and the integers; not cells, structures, characters
COMPLEX = 0x0800


def read_mat_array(path: str | Path, name: str) -> np.ndarray:
    """Return one array of a MATLAB file.

    Args:
        path: The file.
        name: What the array is called in it.

    Raises:
        SampleError: The file is missing, broken or of another version, or holds no such array of real numbers.
    """
    refuse_irregular(path)
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise SampleError(str(path), "there is no such file", always=True) from None
    if content.startswith(b"\x89HDF") or content[:6] != b"MATLAB" or content[126:128] not in (b"IM", b"MI"):
        raise SampleError(
            str(path), "is no MATLAB file of version 5; save it in MATLAB by save(..., '-v7')", always=True
        )
    order = "<" if content[126:128] == b"IM" else ">"
    others = []
    try:
        for kind, data in _elements(content[HEADER:], order):
            kind, data = next(_elements(zlib.decompress(data), order)) if kind == COMPRESSED else (kind, data)
            if kind != MATRIX:
                continue
            found, array = _matrix(data, order)
            if found == name and array is not None:
                return array
            others.append(found)
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration) as error:
        raise SampleError(str(path), f"is broken ({error or 'it ends too early'})", always=True) from error
    raise SampleError(
        str(path), f"holds no numbers called {name!r}, only {', '.join(others) or 'nothing'}", always=True
    )


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of the elements that follow each other."""
    place = 0
    while place + TAG <= len(content):
        kind, length = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # up to four bytes lie in the tag itself
            start, length, kind, step = place + 4, kind >> 16, kind & 0xFFFF, TAG
        else:
            start, step = place + TAG, TAG + length + (0 if kind == COMPRESSED else -length % 8)
        if start + length > len(content):
            raise ValueError("it ends too early")
        yield kind, content[start : start + length]
        place += step


def _matrix(data: bytes, order: str) -> tuple[str, np.ndarray | None]:
    """Return name and values of a matrix; no values where it holds no real numbers."""
    parts = _elements(data, order)
    flags, shape, name = (next(parts)[1] for _ in range(3))
    (kind,) = struct.unpack_from(f"{order}I", flags)
    title = name.decode("ascii")
    if kind & 0xFF not in NUMERIC_CLASSES or kind & COMPLEX:
        return title, None
    stored, values = next(parts)
    array = np.frombuffer(values, dtype=np.dtype(order + NUMBERS[stored]))
    return title, array.astype(np.float64).reshape(np.frombuffer(shape, dtype=order + "i4"), order="F")
