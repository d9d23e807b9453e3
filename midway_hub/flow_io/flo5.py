"""Spring's .flo5: an HDF5 file with one data set, `flow`."""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np

from midway_hub._extras import how_to_install
from midway_hub.flow_io.field import FlowField

DATASET = "flow"
COMPRESSION = 5  # Spring's own


def decode(data: bytes) -> FlowField:
    """Read flow; NaN means that it is not known.

    Raises:
        ValueError: Not HDF5, damaged, or without a data set `flow` of shape (H, W, 2).
        ImportError: h5py is not installed.
    """
    h5py = _h5py()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            names = list(file)
            flow = file[DATASET][()] if DATASET in names else None
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"no HDF5 file, or a damaged one: {error}") from None
    if flow is None:
        raise ValueError(f"it has no data set {DATASET!r}; there are: {', '.join(names) or 'none'}")
    return FlowField.of(flow)


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
