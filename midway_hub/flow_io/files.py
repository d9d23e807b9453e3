"""Reading and writing flow; the form follows the file's ending."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midway_hub._durable import whole_file
from midway_hub._regular import refuse_irregular
from midway_hub.flow_io import flo, flo5, kitti_png, numpy_files, pfm
from midway_hub.flow_io.field import FlowField, FlowFileError


@dataclass(frozen=True)
class _Format:
    decode: Callable[[bytes], FlowField]
    encode: Callable[[FlowField], bytes]


_FORMATS = {
    ".flo": _Format(flo.decode, flo.encode),
    ".pfm": _Format(pfm.decode, pfm.encode),
    ".flo5": _Format(flo5.decode, flo5.encode),
    ".npy": _Format(numpy_files.decode_npy, numpy_files.encode_npy),
    ".npz": _Format(numpy_files.decode_npz, numpy_files.encode_npz),
    ".png": _Format(kitti_png.decode, kitti_png.encode),
}

FLOW_SUFFIXES = tuple(_FORMATS)
"""The endings of the files that hold flow; `.png` is KITTI's 16-bit form."""


def read_flow(path: str | os.PathLike[str]) -> FlowField:
    """Read optical flow.

    Args:
        path: A .flo, .pfm, .flo5 (needs h5py), .npy, .npz or KITTI's 16-bit .png.

    Returns:
        The flow in pixels and where it is known, exactly as the file has it.

    Raises:
        FlowFileError: An unknown ending; a broken file, or one of another kind.
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        ImportError: h5py is missing.
    """
    path = Path(path)
    form = _format_of(path)
    refuse_irregular(path)
    data = path.read_bytes()
    try:
        return form.decode(data)
    except ValueError as error:
        raise FlowFileError(f"{path}: {error}") from error


def write_flow(path: str | os.PathLike[str], flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write optical flow; the file appears whole or not at all.

    Flow that is not finite is written as not valid. All forms keep float32 to the bit, but .png, which holds 1/64 pixel
    from -512 to 511.98.

    Args:
        path: As for `read_flow`; an existing file is replaced.
        flow: (H, W, 2) in pixels, x to the right, then y downwards.
        valid: (H, W), where the flow is known; default: where it is finite.

    Raises:
        FlowFileError: An unknown ending, arrays that do not fit, or flow that the form cannot hold.
        OSError: It cannot be written.
        ImportError: h5py is missing.
    """
    path = Path(path)
    form = _format_of(path)
    try:
        data = form.encode(FlowField.of(flow, valid))
    except ValueError as error:
        raise FlowFileError(f"{path}: {error}") from error
    with whole_file(path) as beside:
        beside.write_bytes(data)


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise FlowFileError(
            f"{path}: no form of flow is known by the ending {path.suffix!r}; known: {' '.join(FLOW_SUFFIXES)}"
        ) from None
