"""Label maps of pixels to soft labels on the patch grid, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def label_seeds(
    labels: Tensor,
    ids: Sequence[int],
    size: tuple[int, int],
    grid: tuple[int, ...],
    *,
    how: Literal["nearest", "bilinear"],
) -> Tensor:
    """Bring a label map onto the patch grid.

    Args:
        labels: (H, W) whole numbers.
        ids: The labels that are wanted; others belong to none.
        size: (height, width) of the network's input.
        grid: Patch grid (h, w).
        how: `"nearest"`: each patch has the label of the pixel at its centre, so objects that miss all centres are
            lost. `"bilinear"`: shares of the labels of the pixels around its centre.

    Returns:
        (C, h, w) float32, one map per id.
    """
    pixels = labels[None, None].float()
    if how == "nearest":
        small = F.interpolate(pixels, tuple(grid), mode="nearest-exact")[0]
        return torch.cat([(small == label).float() for label in ids])
    pixels = F.interpolate(pixels, size, mode="nearest")
    maps = [
        F.interpolate((pixels == label).float(), tuple(grid), mode="bilinear", align_corners=False) for label in ids
    ]
    return torch.cat(maps)[:, 0]


def read_labels(
    soft: Tensor, ids: Sequence[int], size: tuple[int, int], own_size: tuple[int, ...], *, normalise: bool
) -> np.ndarray:
    """Decide on the label of every pixel: soft labels upsampled to the network's input, the largest one taken there.

    Args:
        soft: (C, h, w).
        ids: The C labels.
        size: (height, width) of the network's input.
        own_size: (height, width) of the frame.
        normalise: Whether each map is brought to between 0 and 1 after upsampling; one that is 0 everywhere stays so.

    Returns:
        (H, W) uint8, some of `ids`; the first of those that are equally large.
    """
    best = soft.new_full(size, -torch.inf)
    labels = torch.zeros(size, dtype=torch.uint8, device=soft.device)
    for label, coarse in zip(ids, soft, strict=True):  # one by one: there may be hundreds
        fine = F.interpolate(coarse[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        if normalise and fine.max() > 0:
            fine = fine - fine.min()
            fine = fine / fine.max().clamp_min(torch.finfo(fine.dtype).tiny)
        better = fine > best
        best = torch.where(better, fine, best)
        labels[better] = label
    return F.interpolate(labels[None, None].cpu(), tuple(own_size), mode="nearest-exact")[0, 0].numpy()
