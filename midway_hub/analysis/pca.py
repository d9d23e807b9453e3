"""Features as colours: the first three principal components, fixed over a clip."""

from __future__ import annotations

import torch
from torch import Tensor


def pca_colours(features: Tensor, *, quantile: float = 0.01) -> Tensor:
    """Colour features by their first three principal components.

    One basis and one scale serve all frames, so that the same colour means the same feature throughout a clip. Signs
    are fixed (each component's largest weight is positive), so that equal features give equal colours.

    Args:
        features: (T, D, h, w), of one clip; D at least 3.
        quantile: Share of values cut off at either end of the colour scale.

    Returns:
        (T, h, w, 3) float32 between 0 and 1.

    Raises:
        ValueError: `features` has another number of axes, fewer than 3 channels, or holds NaN or infinity.
    """
    if features.ndim != 4 or features.shape[1] < 3:
        raise ValueError(f"features must be (T, D, h, w) with D of at least 3, got {tuple(features.shape)}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinite values; colours need finite ones")
    points = features.permute(0, 2, 3, 1).flatten(0, 2).float()
    points = points - points.mean(dim=0)
    _, _, components = torch.linalg.svd(points.T @ points)
    basis = components[:3].T
    strongest = basis.abs().argmax(dim=0)
    basis = basis * basis[strongest, torch.arange(3)].sign()
    scores = points @ basis
    ends = torch.tensor([quantile, 1 - quantile], device=scores.device)
    low, high = torch.quantile(_subsample(scores), ends, dim=0)
    colours = ((scores - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.unflatten(0, (features.shape[0], *features.shape[2:]))


def _subsample(values: Tensor, limit: int = 1_000_000) -> Tensor:
    """Every k-th row, so that torch.quantile's limit on input size holds for long clips."""
    return values[:: max(1, len(values) // limit + 1)]
