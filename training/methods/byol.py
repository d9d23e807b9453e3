"""What BYOL compares with: small heads of 1x1 convolutions, and the distance of unit vectors (Grill et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub.training.losses import at_least_float32
from midway_hub.training.settings import Settings


class ByolSettings(Settings):
    """Sizes of projector and predictor."""

    hidden: int = Field(4096, ge=1)
    """Width of the hidden layer."""

    out: int = Field(256, ge=1)
    """Width of what is compared."""


def byol_head(width: int, settings: ByolSettings, *, first_bias: bool) -> nn.Sequential:
    """Return a projector or predictor for maps (B, width, h, w): convolution, BatchNorm, ReLU, convolution."""
    return nn.Sequential(
        nn.Conv2d(width, settings.hidden, 1, bias=first_bias),
        nn.BatchNorm2d(settings.hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(settings.hidden, settings.out, 1),
    )


def byol_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance 2 − 2·cos of vectors along the channels of maps (B, C, h, w); (B, h, w), float32 or better."""
    return 2 - 2 * F.cosine_similarity(at_least_float32(predicted), at_least_float32(target), dim=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over samples of the mean of values (B, h, w) where a mask (B, h, w) is true; samples without count 0."""
    mask = mask.to(values.dtype)
    counted = mask.sum(dim=(1, 2))
    sums = torch.where(mask > 0, values, 0.0).sum(dim=(1, 2))
    return (sums / counted.clamp(min=1)).mean()
