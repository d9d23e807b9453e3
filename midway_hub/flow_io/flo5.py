"""Spring's .flo5: an HDF5 file with one data set, `flow`."""

from __future__ import annotations

import io
import math
from types import ModuleType
from typing import Any

import numpy as np

from midway_hub._extras import how_to_install
from midway_hub.flow_io.claims import check_claim
from midway_hub.flow_io.field import FlowField

DATASET = "flow"
COMPRESSION = 5  # Spring's own


def decode(data: bytes) -> FlowField:
    """Read flow; NaN means that it is not known.

    Raises:
        ValueError: Not HDF5, damaged, or without a data set `flow` of shape (H, W, 2) of its own.
        ImportError: h5py is not installed.
    """
    h5py = _h5py()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if DATASET not in list(file):
                raise ValueError(f"it has no data set {DATASET!r}; there are: {', '.join(file) or 'none'}")
            return FlowField.of(_dataset(file, h5py)[()])
    except (OSError, RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"no HDF5 file, or a damaged one: {error}") from None


def _dataset(file: Any, h5py: ModuleType) -> Any:
    """Return the data set, once it is sure that it is one, that this file holds it, and all of it."""
    link = file.get(DATASET, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"its {DATASET!r} is a link to {link.path!r} of another file, {link.filename}; give that file")
    try:
        found = file[DATASET]
    except (KeyError, OSError, RuntimeError):  # h5py's versions differ in what links that lead nowhere raise
        if not isinstance(link, h5py.SoftLink):
            raise
        raise ValueError(
            f"its {DATASET!r} is a link to {link.path!r}, which this file does not hold; "
            "write the file again with the numbers in it"
        ) from None
    if not isinstance(found, h5py.Dataset) or not found.shape:
        raise ValueError(f"its {DATASET!r} is no data set of numbers but {found}")
    if found.is_virtual or found.external:
        raise ValueError(f"the numbers of its {DATASET!r} lie in other files; write it again with the numbers in it")
    if found.dtype.kind not in "fiu":
        raise ValueError(f"its {DATASET!r} holds {found.dtype}; wanted real numbers")
    _check_written(found)
    return found


def _check_written(found: Any) -> None:
    """Refuse numbers that were announced and never written: HDF5 reads them as zeros, which would be a flow."""
    parts = found.chunks or found.shape
    counts = [-(-side // part) for side, part in zip(found.shape, parts, strict=True)]
    stored = [count * part for count, part in zip(counts, parts, strict=True)]
    if found.chunks and 0 < found.id.get_num_chunks() < math.prod(counts):
        seen = f"{found.id.get_num_chunks()} of {math.prod(counts)} parts"
        raise ValueError(f"its {DATASET!r} holds {seen}; it was cut short: copy or write it again")
    check_claim(stored, found.dtype.itemsize, found.id.get_storage_size(), packed=bool(found.chunks))


def encode(field: FlowField) -> bytes:
    """Write flow, NaN where it is not known.

    Raises:
        ImportError: h5py is not installed.
    """
    file = io.BytesIO()
    with _h5py().File(file, "w") as written:
        written.create_dataset(
            DATASET, data=field.with_unknown(np.nan), compression="gzip", compression_opts=COMPRESSION
        )
    return file.getvalue()


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f".flo5 files are HDF5, which the package h5py reads: {how_to_install('h5py')} ({error})"
        ) from error
    return h5py
