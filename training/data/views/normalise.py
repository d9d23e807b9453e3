"""From grey levels to what the networks take."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from midway_hub.processing import IMAGENET, Normalisation


def normalise_views(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Normalise views by ImageNet's mean and standard deviation, on the device they are on.

    Args:
        views: By group, (..., 3, h, w) RGB in grey levels 0 to 255, uint8 or floating point; what has a slash in its
            name, as `GROUP/affine` and `flow/0/1`, is no picture and stays as it is.

    Returns:
        The same, pictures as float32.
    """
    return {name: found if "/" in name else normalise(found) for name, found in views.items()}


def normalise(levels: Tensor, normalisation: Normalisation = IMAGENET) -> Tensor:
    """Normalise frames (..., 3, H, W) in grey levels 0 to 255, by ImageNet's numbers or others."""
    mean = torch.tensor(normalisation.mean, device=levels.device).view(3, 1, 1)
    std = torch.tensor(normalisation.std, device=levels.device).view(3, 1, 1)
    return (levels.to(torch.float32) - 255 * mean).div_(255 * std)
