"""Nearest-feature matching: the baseline that motion from the dynamics is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def matching_heatmaps(source: Tensor, target: Tensor) -> Tensor:
    """Compare every patch of a source frame with every patch of a target frame.

    What comes back has the form of `perturbation_heatmaps` over all tokens, so `coarse_flow` reads the flow of
    nearest-feature matching off it.

    Args:
        source: (..., D, h, w) features of the source frame, e.g. `net.encode(frame).last`.
        target: (..., D, h, w) features of the target frame, by the same network.

    Returns:
        (..., N, h, w): cosine similarity of source patch n, row by row, with every target patch; between -1 and 1.

    Raises:
        ValueError: The two differ in shape.
    """
    if source.shape != target.shape or source.ndim < 3:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"source and target features must both be (..., D, h, w), got {shapes}")
    grid = source.shape[-2:]
    source, target = (F.normalize(features.flatten(-2), dim=-2) for features in (source, target))
    return (source.transpose(-1, -2) @ target).unflatten(-1, grid)
