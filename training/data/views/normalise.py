"""From grey levels to what the networks take."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from midway_hub.processing import IMAGENET, Normalisation


def normalise_views(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Normalise views by ImageNet's mean and standard deviation, on the device they are on.

    Args:
        views: By group, (..., 3, h, w) uint8 RGB; what is of another type is no picture and stays as it is.

    Returns:
        The same, pictures as float32.
    """
    return {name: normalise(found) if found.dtype == torch.uint8 else found for name, found in views.items()}


def normalise(levels: Tensor, normalisation: Normalisation = IMAGENET) -> Tensor:
    """Normalise frames (..., 3, H, W) in grey levels 0 to 255, by ImageNet's numbers or others."""
    mean = torch.tensor(normalisation.mean, device=levels.device).view(3, 1, 1)
    std = torch.tensor(normalisation.std, device=levels.device).view(3, 1, 1)
    return (levels.to(torch.float32) - 255 * mean).div_(255 * std)
