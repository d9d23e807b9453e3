"""Where points of a video lie on the network's patch grid, and where places on the grid lie in the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway_hub.processing.geometry import Geometry, Placement


@dataclass(frozen=True)
class PatchPlaces:
    """Pixels of a video to places on the patch grid, and back.

    Pixels are counted from 0, so the centre of the top left pixel is (0, 0); a place is counted in patches, so the
    centre of the top left patch is (0, 0). Both are x to the right, then y downwards.

    Attributes:
        placement: Where the frames lie in the network's input; nothing of them is cropped.
        grid: Patch grid (h, w).
        patch_size: Side of a patch in pixels of the network's input.
    """

    placement: Placement
    grid: tuple[int, int]
    patch_size: int

    @classmethod
    def of(cls, geometry: Geometry, patch_size: int) -> PatchPlaces:
        """Read them off what the processor says about a single frame."""
        height, width = geometry.model_size
        return cls(geometry.placements[0], (height // patch_size, width // patch_size), patch_size)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video in pixels."""
        return self.placement.source

    def of_points(self, points: np.ndarray) -> Tensor:
        """Return the places (P, 2) float64 of points (P, 2) in pixels.

        Raises:
            ValueError: A point lies outside the frame.
        """
        height, width = self.size
        for number, (x, y) in enumerate(points, start=1):
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                raise ValueError(
                    f"point {number}, ({x:g}, {y:g}), lies outside the frame of {width}×{height} pixels; x must be "
                    f"from 0 to {width - 1}, y from 0 to {height - 1}"
                )
        return (torch.from_numpy(points) + 0.5) * self._per_pixel() - 0.5

    def to_points(self, places: Tensor) -> np.ndarray:
        """Return the points (P, 2) float32 in pixels of places (P, 2), moved onto the frame where they lie beside."""
        height, width = self.size
        points = (places + 0.5) / self._per_pixel() - 0.5
        return points.clamp_min(0).minimum(torch.tensor([width - 1, height - 1])).float().numpy()

    def within(self, places: Tensor) -> Tensor:
        """Move places (P, 2) that lie beside the grid onto its edge."""
        height, width = self.grid
        return places.clamp_min(-0.5).minimum(torch.tensor([width - 0.5, height - 0.5], dtype=places.dtype))

    def tokens(self, places: Tensor) -> Tensor:
        """Return the patches (P,) int64, counted row by row, that places (P, 2) lie in."""
        height, width = self.grid
        column = (places[:, 0] + 0.5).floor().long().clamp(0, width - 1)
        row = (places[:, 1] + 0.5).floor().long().clamp(0, height - 1)
        return row * width + column

    def centres(self, tokens: Tensor) -> Tensor:
        """Return the places (P, 2) float64 of the centres of patches (P,)."""
        width = self.grid[1]
        return torch.stack([tokens % width, tokens // width], dim=1).double()

    def _per_pixel(self) -> Tensor:
        """Patches per pixel of the video, across and down."""
        (height, width), (resized_height, resized_width) = self.placement.source, self.placement.resized
        return torch.tensor([resized_width / width, resized_height / height], dtype=torch.float64) / self.patch_size


def checked_points(points: Sequence[Sequence[float]] | np.ndarray | Tensor) -> np.ndarray:
    """Return points as an array (P, 2) float64.

    Raises:
        ValueError: Not at least one pair of finite numbers.
    """
    try:
        array = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(f"points must be at least one (x, y) in pixels of the video, got {points!r}")
    if not np.isfinite(array).all():
        raise ValueError(f"points must be finite numbers, got {array.tolist()}")
    return array


def grid_points(size: tuple[int, int], across: int) -> np.ndarray:
    """Spread points evenly over a frame.

    Args:
        size: Height and width of the frame in pixels.
        across: Points per row; as many rows as keep the same step downwards.

    Returns:
        (P, 2) float64 in pixels, row by row.

    Raises:
        ValueError: `across` is not from 1 to the frame's width.
    """
    height, width = size
    if not 1 <= across <= width:
        raise ValueError(f"a grid has from 1 to {width} points across in a frame {width} pixels wide, got {across}")
    down = max(1, round(across * height / width))
    x = (np.arange(across) + 0.5) * width / across - 0.5
    y = (np.arange(down) + 0.5) * height / down - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
