"""Frames of a data set as a network takes them."""

from __future__ import annotations

import numpy as np
import torch
from midway_hub.training.data.views import normalise
from torch import Tensor


def network_input(frame: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Turn a frame (H, W, 3) uint8 into (1, 3, H, W) float32, normalised, on a device."""
    return normalise(frame_tensor(frame, device))


def frame_tensor(frame: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Turn a frame (H, W, 3) uint8 into (1, 3, H, W) uint8 on a device.

    Raises:
        ValueError: It is not (H, W, 3) uint8.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame must be (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
    return torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None]
