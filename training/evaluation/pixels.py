"""Frames of a data set as a network takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.processing import IMAGENET, Normalisation
from midway_hub.processing.arrays import frame_tensor
from midway_hub.training.data.views import normalise


def network_input(
    frame: np.ndarray, device: torch.device | str = "cpu", normalisation: Normalisation = IMAGENET
) -> Tensor:
    """Turn a frame (H, W, 3) uint8 into (1, 3, H, W) float32, normalised, on a device."""
    return normalise(frame_tensor(frame, device), normalisation)


def inputs_of(network: MidwayNetwork, *frames: np.ndarray) -> list[Tensor]:
    """Turn frames (H, W, 3) uint8 into what a network takes, normalised as its checkpoint says: (1, 3, H, W) each."""
    return [network_input(frame, network.device, network.image_processor.normalisation) for frame in frames]
