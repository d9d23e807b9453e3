"""Resizing, flipping and cropping in one go: only the pixels of the crop are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
ALL_KNOWN = 1 - 1e-4  # weight of known pixels that only float rounding keeps from 1


@dataclass(frozen=True)
class Axis:
    """How the rows or columns of a crop come about: resized, perhaps flipped, then cut out.

    Attributes:
        old: Pixels before.
        new: Pixels after resizing.
        flipped: Whether their order is reversed then.
        start: Where the crop begins then.
        count: Pixels of the crop.
    """

    old: int
    new: int
    flipped: bool
    start: int
    count: int

    @property
    def factor(self) -> float:
        """What displacements along the axis are multiplied by."""
        return (-1 if self.flipped else 1) * self.new / self.old

    def sources(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the two old pixels (count,) that each pixel of the crop is between, and the second one's weight.

        Centres of pixels are at halves, and what is beyond the edge is as at the edge.
        """
        number = np.arange(self.start, self.start + self.count)
        resized = self.new - 1 - number if self.flipped else number
        place = np.clip((resized + 0.5) * self.old / self.new - 0.5, 0, self.old - 1)
        low = place.astype(np.int64)
        return low, np.minimum(low + 1, self.old - 1), (place - low).astype(np.float32)

    def targets(self, number: np.ndarray) -> np.ndarray:
        """Return the pixels of the crop nearest to old pixels; those out of it are below 0 or not below `count`."""
        resized = np.clip(np.rint((number + 0.5) * self.new / self.old - 0.5).astype(np.int64), 0, self.new - 1)
        return (self.new - 1 - resized if self.flipped else resized) - self.start


def interpolate(pictures: Sequence[np.ndarray], rows: Axis, columns: Axis) -> np.ndarray:
    """Return the crop of pictures (H, W, C) laid on each other, (h, w, all C) float32, bilinearly."""
    (top, low, down), (left, right, across) = rows.sources(), columns.sources()
    part = slice(top.min(), low.max() + 1), slice(left.min(), right.max() + 1)
    layers = np.concatenate([picture[part] for picture in pictures], axis=2, dtype=np.float32)
    layers = _blend(layers, top - part[0].start, low - part[0].start, down, 0)
    return _blend(layers, left - part[1].start, right - part[1].start, across, 1)


def interpolate_flow(planes: np.ndarray, rows: Axis, columns: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Return flow (h, w, 2) and where all it is made of was known, of interpolated planes (h, w, 3): u, v, valid."""
    known = planes[..., 2] > ALL_KNOWN
    return np.where(known[..., None], planes[..., :2] * _factors(rows, columns), np.float32(0)), known


def scatter_flow(flow: np.ndarray, valid: np.ndarray, rows: Axis, columns: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Move each known pixel of sparse flow to the nearest of the crop; where two meet, the later one stays.

    Args:
        flow: (H, W, 2) float32.
        valid: (H, W) bool.
        rows: How rows change.
        columns: How columns change.

    Returns:
        flow (h, w, 2), 0 where it is not known, and where it is, (h, w).
    """
    y, x = np.nonzero(valid)
    new_y, new_x = rows.targets(y), columns.targets(x)
    inside = (new_y >= 0) & (new_y < rows.count) & (new_x >= 0) & (new_x < columns.count)
    place = new_y[inside], new_x[inside]
    moved = np.zeros((rows.count, columns.count, 2), dtype=np.float32)
    known = np.zeros((rows.count, columns.count), dtype=bool)
    moved[place] = flow[y[inside], x[inside]] * _factors(rows, columns)
    known[place] = True
    return moved, known


def _blend(layers: np.ndarray, low: np.ndarray, high: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    if not weight.any():
        return layers.take(low, axis=axis)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    first, second = layers.take(low, axis=axis), layers.take(high, axis=axis)
    second -= first
    second *= weight.reshape(shape)
    first += second
    return first


def _factors(rows: Axis, columns: Axis) -> np.ndarray:
    return np.array([columns.factor, rows.factor], dtype=np.float32)
