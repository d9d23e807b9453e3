"""The affines of a batch: applied to images, undone on maps, and which pixels come back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.training.losses import exactly

CLOSE = 1e-3
"""How far from 1 a map of ones may be, there and back, where pixels count (kornia's use in PooDLe's code)."""


def transformed(maps: Tensor, affine: Tensor) -> Tensor:
    """Apply affines (B, 2, 3), in `affine_grid`'s coordinates, to maps or images (B, C, H, W); zeros lie outside."""
    with exactly(maps):  # in half precision, places are off by pixels
        grid = F.affine_grid(affine.float(), [*maps.shape], align_corners=False)
        return F.grid_sample(maps.float(), grid, align_corners=False)


def inverse(affine: Tensor) -> Tensor:
    """Return the affines (B, 2, 3) that undo others."""
    row = affine.new_tensor([0.0, 0.0, 1.0]).expand(len(affine), 1, 3)
    return torch.linalg.inv(torch.cat([affine, row], dim=1).float())[:, :2]


def undone(maps: Tensor, affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps (B, C, h, w) of transformed images to an image's size and take the affine back; (B, C, H, W)."""
    resized = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return transformed(resized, inverse(affine))


def survives(affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell which pixels of an image come back from an affine and its inverse, (B, H, W) bool."""
    ones = affine.new_ones(len(affine), 1, *size, dtype=torch.float32)
    back = transformed(transformed(ones, affine), inverse(affine))
    return (back[:, 0] - 1).abs() < CLOSE
