"""Features as colours: the first three principal components, fixed over a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from midway_hub._tensors import need_finite

MOST_VALUES = 1_000_000
"""Rows that colour scales are found on at most; torch.quantile takes no more than 16 times as many."""


@dataclass(frozen=True)
class PcaBasis:
    """A fixed way from features to colours, so that the same colour means the same feature in every frame.

    Signs are fixed (each component's largest weight is positive), so that equal features give equal colours.

    Attributes:
        mean: (D,), taken off first.
        directions: (D, 3), the principal components.
        low: (3,), scores that become 0.
        high: (3,), scores that become 1.
        explained: (3,), each component's share of the variance.
    """

    mean: Tensor
    directions: Tensor
    low: Tensor
    high: Tensor
    explained: Tensor

    @classmethod
    def fit(cls, features: Iterable[Tensor], *, quantile: float = 0.01) -> PcaBasis:
        """Find the basis and the colour scale of some frames.

        Args:
            features: (D, h, w) of each frame, D at least 3; grids may differ.
            quantile: Share of values cut off at either end of the colour scale.

        Raises:
            ValueError: No frames, frames of other shapes, NaN or infinity, or a quantile outside [0, 0.5).
        """
        if not 0 <= quantile < 0.5:
            raise ValueError(f"quantile must be at least 0 and below 0.5, got {quantile}")
        rows = [_rows(frame) for frame in features]
        if not rows:
            raise ValueError("no features to find colours for; give at least one frame's")
        points = torch.cat(rows)
        mean = points.mean(dim=0)
        centred = points - mean
        _, variances, components = torch.linalg.svd(centred.T @ centred)
        directions = components[:3].T
        strongest = directions.abs().argmax(dim=0)
        directions = directions * directions.gather(0, strongest[None]).sign()
        ends = points.new_tensor([quantile, 1 - quantile])
        low, high = torch.quantile((centred @ directions)[:: len(points) // MOST_VALUES + 1], ends, dim=0)
        explained = variances[:3] / variances.sum().clamp_min(1e-30)
        return cls(mean=mean, directions=directions, low=low, high=high, explained=explained)

    def colours(self, features: Tensor) -> Tensor:
        """Colour one frame.

        Args:
            features: (D, h, w), of the network that the basis was found for.

        Returns:
            (h, w, 3) float32 between 0 and 1.

        Raises:
            ValueError: Features of another width or shape, or with NaN or infinity.
        """
        rows = _rows(features)
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"the basis is of features of width {len(self.mean)}, got width {rows.shape[1]}")
        scores = (rows - self.mean) @ self.directions
        colours = ((scores - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1)
        return colours.unflatten(0, features.shape[1:])


def pca_colours(features: Tensor, *, quantile: float = 0.01) -> Tensor:
    """Colour features by their first three principal components.

    One basis and one scale serve all frames. For clips that do not fit into memory, see `PcaBasis`.

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
    basis = PcaBasis.fit(features, quantile=quantile)
    return torch.stack([basis.colours(frame) for frame in features])


def _rows(features: Tensor) -> Tensor:
    """Return the features (D, h, w) of a frame's patches as rows (N, D), or refuse them."""
    if features.ndim != 3 or features.shape[0] < 3:
        raise ValueError(f"features of a frame must be (D, h, w) with D of at least 3, got {tuple(features.shape)}")
    need_finite(features, "a frame's feature map")
    return features.flatten(1).T.float()
