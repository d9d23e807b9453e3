"""Frames and clips as people hold them, in lists and stacks, as float tensors in [0, 1]."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub._tensors import check_dense_tensor
from midway_hub.processing.arrays import layout, pixels_from_array
from midway_hub.processing.pictures import pixels_from_file, pixels_from_pil

ACCEPTED = "a path, an http(s) URL, a PIL image, a numpy array (H, W, 3), a torch tensor (3, H, W), or lists of them"


def load_frame(source: Any, *, name: str = "frame") -> Tensor:
    """Reads one picture.

    Args:
        source: A path, an http(s) URL, a PIL image (its current frame), a numpy array or a torch tensor; the notes of
            `midway_hub.processing` say how arrays are read.
        name: How errors call it.

    Returns:
        (3, H, W) float32 in [0, 1], on the device of a tensor, else on the CPU. A float tensor keeps its gradient.

    Raises:
        TypeError: Not a picture.
        ValueError: Not an image file, a damaged one, an animation, one of too many pixels; an array of the wrong shape
            or dtype, or of values that are not finite or not in [0, 1]; a tensor that is not dense; a URL that is not
            http(s).
        FileNotFoundError: No such file.
        OSError: The file cannot be read, or the URL does not give an image (`FetchError`).
    """
    if isinstance(source, (str, os.PathLike)):
        return pixels_from_file(source, name)
    if isinstance(source, Image.Image):
        return pixels_from_pil(source, name)
    if isinstance(source, Tensor):
        check_dense_tensor(source, name)
    if isinstance(source, (np.ndarray, Tensor)):
        if source.ndim not in (2, 3):
            raise ValueError(f"{name} has shape {tuple(source.shape)}; one frame is {layout(source)}")
        return pixels_from_array(source, name)
    raise TypeError(f"{name} is of type {type(source).__name__}; wanted {ACCEPTED}")


def load_frames(source: Any, *, name: str = "frames") -> list[Tensor]:
    """Reads one picture, or a list or stack of them.

    Args:
        source: What `load_frame` takes, a list or tuple of such, an array (T, H, W, C) or a tensor (T, C, H, W).
        name: How errors call it.

    Returns:
        One (3, H, W) float32 tensor in [0, 1] per picture, in order; sizes may differ.

    Raises:
        ValueError: Empty, or nested deeper; and as `load_frame`.
        TypeError: As `load_frame`.
        OSError: As `load_frame`.
    """
    depth = nesting(source, name)
    if depth == 0:
        return [load_frame(source, name=name)]
    if depth > 1:
        raise ValueError(f"{name} holds clips (lists of frames); wanted single frames")
    if isinstance(source, (list, tuple)):
        return [load_frame(_flat(item, f"{name}[{i}]"), name=f"{name}[{i}]") for i, item in enumerate(source)]
    return list(pixels_from_array(source, name).unbind(0))


def load_clips(source: Any, *, name: str = "clips") -> list[Tensor]:
    """Reads one clip, or a list or stack of them.

    Args:
        source: A list of frames or a stack (one clip), or a list of those, an array (B, T, H, W, C) or a tensor
            (B, T, C, H, W).
        name: How errors call it.

    Returns:
        One (T, 3, H, W) float32 tensor in [0, 1] per clip, in order; sizes and lengths may differ between clips.

    Raises:
        ValueError: Empty, a single frame, nested deeper, or frames of several sizes in one clip; and as `load_frame`.
        TypeError: As `load_frame`.
        OSError: As `load_frame`.
    """
    depth = nesting(source, name)
    if depth == 0:
        raise ValueError(f"{name} is a single frame; a clip is a list of frames")
    if depth == 1:
        return [_load_clip(source, name)]
    if depth > 2:
        raise ValueError(f"{name} is nested {depth} deep; wanted a list of clips, each a list of frames")
    if isinstance(source, (list, tuple)):
        return [_load_clip(item, f"{name}[{i}]") for i, item in enumerate(source)]
    return list(pixels_from_array(source, name).unbind(0))


def nesting(source: Any, name: str = "frames") -> int:
    """How deep frames lie in lists and stacks: 0 for a frame, 1 for a list of frames, 2 for a list of clips.

    Raises:
        ValueError: A list on the way is empty, or a tensor not dense.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError(f"{name} is empty; pass at least one frame")
        return 1 + nesting(source[0], f"{name}[0]")
    if isinstance(source, Tensor):
        check_dense_tensor(source, name)
    if isinstance(source, (np.ndarray, Tensor)):
        return max(source.ndim - 3, 0)
    return 0


def _load_clip(source: Any, name: str) -> Tensor:
    depth = nesting(source, name)
    if depth != 1:
        raise ValueError(f"{name} is {'a single frame' if depth == 0 else 'nested deeper'}; a clip is a list of frames")
    if isinstance(source, (np.ndarray, Tensor)):
        return pixels_from_array(source, name)
    frames = load_frames(source, name=name)
    sizes = sorted({f"{frame.shape[-2]}×{frame.shape[-1]}" for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"{name} holds frames of {', '.join(sizes)}; the frames of a clip must be of one size")
    return stack(frames, name)


def stack(tensors: list[Tensor], name: str) -> Tensor:
    """Stacks tensors of one shape, refusing a mixture of devices by name."""
    if len(tensors) == 1:
        return tensors[0][None]
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1:
        raise ValueError(f"{name} lie on {' and '.join(devices)}; move them to one device")
    return torch.stack(tensors)


def _flat(item: Any, name: str) -> Any:
    if isinstance(item, (list, tuple)) or nesting(item, name):
        raise ValueError(f"{name} is a list or stack of frames while the first is a single frame; do not mix the two")
    return item
