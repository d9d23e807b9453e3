"""Pixel arrays of any layout and number type as float tensors (..., 3, H, W) in [0, 1].

The rules of layout and values are in the notes of `midway_hub.processing`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CHANNELS = (1, 3, 4)
_FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NUMPY_TYPES = (np.uint8, np.uint16, np.float16, np.float32, np.float64)
_TOLERANCE = 1e-4


def pixels_from_array(array: np.ndarray | Tensor, name: str) -> Tensor:
    """Reads an array or tensor as RGB.

    Args:
        array: (H, W) or (..., H, W, C) or (..., C, H, W), as the notes say.
        name: How errors call it.

    Returns:
        (..., 3, H, W) float32 in [0, 1], contiguous, on the tensor's device. A float tensor keeps its gradient.

    Raises:
        ValueError: Empty, another number of channels, another dtype, NaN or infinite values, floats outside [0, 1].
    """
    shape = tuple(array.shape)
    if 0 in shape:
        raise ValueError(f"{name} is empty: shape {shape}")
    channels_last = _is_channels_last(array, name)
    pixels = _as_tensor(array, name)
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif channels_last:
        pixels = pixels.movedim(-1, -3)
    if pixels.shape[-3] == 4:
        pixels = pixels.narrow(-3, 0, 3)
    pixels = _to_unit(pixels, name)
    return pixels.expand(*pixels.shape[:-3], 3, *pixels.shape[-2:]).contiguous()


def _is_channels_last(array: np.ndarray | Tensor, name: str) -> bool:
    if array.ndim == 2:
        return False
    first, last = array.shape[-3], array.shape[-1]
    by_custom = isinstance(array, np.ndarray)
    if (last if by_custom else first) in _CHANNELS:
        return by_custom
    if (first if by_custom else last) == 3:
        return not by_custom
    raise ValueError(
        f"{name} has shape {tuple(array.shape)}: {last if by_custom else first} channels where 1, 3 or 4 are wanted; "
        f"{'a numpy array' if by_custom else 'a tensor'} holds "
        f"{layout(array)}. A stack of grey frames needs a channel axis of 1"
    )


def layout(array: np.ndarray | Tensor) -> str:
    """The shapes of one frame that are customary for this kind of array."""
    return "(H, W) or (H, W, C)" if isinstance(array, np.ndarray) else "(H, W) or (C, H, W)"


def _as_tensor(array: np.ndarray | Tensor, name: str) -> Tensor:
    if isinstance(array, np.ndarray):
        native = array.dtype.newbyteorder("=")
        if native in _NUMPY_TYPES:
            return torch.from_numpy(np.require(array.astype(native, copy=False), requirements=["C", "W"]))
    elif array.dtype in (*_FULL_SCALE, *_FLOATS):
        return array
    raise ValueError(
        f"{name} is of dtype {array.dtype}; wanted uint8 (0..255), uint16 (0..65535) or floats in [0, 1]. "
        f"Whole numbers 0..255 of another type: convert them to uint8"
    )


def _to_unit(pixels: Tensor, name: str) -> Tensor:
    full = _FULL_SCALE.get(pixels.dtype)
    pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    if full is not None:
        return pixels.div_(full)
    values = pixels.detach()
    if not (finite := torch.isfinite(values)).all():
        raise ValueError(f"{name} holds {int((~finite).sum())} values that are NaN or infinite of {values.numel()}")
    low, high = (float(bound) for bound in torch.aminmax(values))
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ValueError(f"{name} holds floats from {low:.4g} to {high:.4g}; wanted [0, 1]. {_range_advice(low, high)}")
    return pixels


def _range_advice(low: float, high: float) -> str:
    if low >= 0 and 2 < high <= 255:
        return "They look like 0..255: divide by 255, or pass uint8"
    if low < -0.5:
        return "They look normalised already: pass pixels, or hand the tensor to the network itself"
    return "Clamp or rescale them"


def frame_tensor(frame: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Turn a frame (H, W, 3) uint8 into (1, 3, H, W) uint8 on a device.

    Raises:
        ValueError: It is not (H, W, 3) uint8.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame must be (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
    return torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None]
