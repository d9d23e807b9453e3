"""The head that DINO compares views with (spec: joint-embedding loss; Caron et al. 2021, appendix C)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from midway_hub.training.settings import Settings


class HeadSettings(Settings):
    """Sizes of the DINO head."""

    hidden: int = Field(2048, ge=1)
    """Width of the two hidden layers."""

    bottleneck: int = Field(256, ge=1)
    """Width of the unit vectors that are compared with the prototypes."""

    prototypes: int = Field(65536, ge=2)
    """Number K of prototypes, the head's outputs."""


class DinoHead(nn.Module):
    """MLP to a unit vector, and its similarity to prototypes: a linear layer whose rows have unit norm times a gain.

    Args:
        width: Width D of the features.
        settings: Sizes.
    """

    def __init__(self, width: int, settings: HeadSettings) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.bottleneck),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = weight_norm(nn.Linear(settings.bottleneck, settings.prototypes, bias=False))
        nn.init.ones_(self.last_layer.parametrizations.weight.original0)  # the gain

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., D) to similarities (..., K)."""
        return self.last_layer(F.normalize(self.mlp(features), dim=-1))
