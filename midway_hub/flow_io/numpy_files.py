"""Flow in numpy's files: .npy with (H, W, 2), as TartanAir has it, and .npz with `u` and `v` (VIPER) or `flow`."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np

from midway_hub.flow_io.field import FlowField


def decode_npy(data: bytes) -> FlowField:
    """Read an array (H, W, 2); what is not finite is not known.

    Raises:
        ValueError: Not a .npy, a damaged one, or an array of another shape or type.
    """
    try:
        flow = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"no .npy, or a damaged one: {error}") from None
    return FlowField.of(flow)


def encode_npy(field: FlowField) -> bytes:
    """Write an array (H, W, 2) float32, NaN where the flow is not known."""
    file = io.BytesIO()
    np.save(file, field.with_unknown(np.nan))
    return file.getvalue()


def decode_npz(data: bytes) -> FlowField:
    """Read `u` and `v` (H, W), or `flow` (H, W, 2), and `valid` (H, W) if there is one.

    Raises:
        ValueError: Not a .npz, a damaged one, or one without these arrays.
    """
    arrays = _arrays(data)
    if "flow" in arrays:
        flow = arrays["flow"]
    elif "u" in arrays and "v" in arrays:
        if arrays["u"].shape != arrays["v"].shape:
            raise ValueError(f"u has shape {arrays['u'].shape} and v {arrays['v'].shape}; wanted the same")
        flow = np.stack([arrays["u"], arrays["v"]], axis=-1)
    else:
        raise ValueError(f"it has neither u and v nor flow; there are: {', '.join(arrays) or 'none'}")
    return FlowField.of(flow, arrays.get("valid"))


def encode_npz(field: FlowField) -> bytes:
    """Write `u` and `v`, (H, W) float32, NaN where the flow is not known."""
    file, flow = io.BytesIO(), field.with_unknown(np.nan)
    np.savez_compressed(file, u=flow[..., 0], v=flow[..., 1])
    return file.getvalue()


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read all arrays of an archive."""
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single array, as .npy files are")
        return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"no .npz, or a damaged one: {error}") from None
