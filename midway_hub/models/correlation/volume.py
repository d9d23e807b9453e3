"""Correlation between all places of two frames, looked up around where each place is thought to have gone (RAFT)."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_VOLUME = 7_000
"""Places at 1/8 (of frames up to about half a megapixel) whose correlations with all others are kept in memory."""
GATHERED = 2**24
"""Numbers that windows looked up on demand may take at a time."""


class Lookup(Protocol):
    """Correlations of every place with a window of others, at every level of a pyramid."""

    def __call__(self, places: Tensor, /) -> Tensor:
        """Map places (B, 2, h, w), x then y in cells, to (B, levels * (2r + 1)^2, h, w)."""
        ...


def correlation(source: Tensor, target: Tensor, *, levels: int, radius: int) -> Lookup:
    """Return what looks correlations up; both kinds give the same numbers.

    Args:
        source: (B, C, h, w).
        target: (B, C, h, w).
        levels: Levels of the pyramid, each of half the size of the one before.
        radius: Cells to each side of a window.
    """
    if source.shape[-2] * source.shape[-1] <= LARGEST_VOLUME:
        return AllPairs(source, target, levels, radius)
    return OnDemand(source, target, levels, radius)


class AllPairs:
    """Keeps the whole volume, (B h w) x (h w), and its pyramid over the target: fast; memory grows as the square.

    As correlations are linear, means over squares of the target's cells are correlations with means of its features.
    """

    def __init__(self, source: Tensor, target: Tensor, levels: int, radius: int) -> None:
        self.radius = radius
        ours = source.flatten(2).transpose(1, 2)
        self.levels = [(ours @ level.flatten(2)).float().flatten(0, 1) for level in pooled(target, levels)]
        self.sizes = [(level.shape[-2], level.shape[-1]) for level in pooled(target[:1, :1], levels)]

    def __call__(self, places: Tensor) -> Tensor:
        batch, _, height, width = places.shape
        points = places.permute(0, 2, 3, 1).reshape(-1, 2)
        found = []
        for level, (volume, size) in enumerate(zip(self.levels, self.sizes, strict=True)):
            window = Window(points, level, self.radius, *size)
            found.append(window.interpolated(volume.gather(1, window.cells)))
        return torch.cat(found, 1).view(batch, height, width, -1).permute(0, 3, 1, 2)


class OnDemand:
    """Keeps the target's features alone and correlates with a window's when asked: memory grows as the frame does."""

    def __init__(self, source: Tensor, target: Tensor, levels: int, radius: int) -> None:
        self.radius = radius
        self.source = source.flatten(2).transpose(1, 2).float()
        self.levels = [level.flatten(2).transpose(1, 2).contiguous() for level in pooled(target.float(), levels)]
        self.sizes = [(level.shape[-2], level.shape[-1]) for level in pooled(target[:1, :1].float(), levels)]

    def __call__(self, places: Tensor) -> Tensor:
        batch, _, height, width = places.shape
        points = places.permute(0, 2, 3, 1).flatten(1, 2)
        found = [
            torch.cat([self._level(number, index, points[number]) for index in range(len(self.levels))], 1)
            for number in range(batch)
        ]
        return torch.stack(found).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def _level(self, number: int, index: int, points: Tensor) -> Tensor:
        source, target = self.source[number], self.levels[index][number]
        at_once = max(1, GATHERED // ((2 * self.radius + 2) ** 2 * target.shape[1]))
        found = []
        for some, own in zip(points.split(at_once), source.split(at_once), strict=True):
            window = Window(some, index, self.radius, *self.sizes[index])
            features = target.index_select(0, window.cells.flatten()).view(*window.cells.shape, -1)
            found.append(window.interpolated(torch.bmm(features, own[:, :, None])[..., 0]))
        return torch.cat(found)


class Window:
    """Cells around points that a bilinear window of (2r + 1)^2 needs: one more to each side than it has.

    All cells of a window lie at the same place between cells, so that two interpolations serve all of them.

    Args:
        points: (N, 2), x then y, in cells of level 0.
        level: Of the pyramid.
        radius: Cells to each side.
        rows: Of the level.
        columns: Of the level.
    """

    def __init__(self, points: Tensor, level: int, radius: int, rows: int, columns: int) -> None:
        self.side = 2 * radius + 2
        span = torch.arange(-radius, radius + 2, device=points.device)
        place = (points + 0.5) / 2**level - 0.5
        corner = place.floor()
        self.fraction = (place - corner).unbind(1)
        corner = corner.clamp(-1e4, 1e4).long()
        x, y = corner[:, :1] + span, corner[:, 1:] + span
        self.inside = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None, :]
        cells = y.clamp(0, rows - 1)[:, :, None] * columns + x.clamp(0, columns - 1)[:, None, :]
        self.cells = cells.flatten(1)
        """(N, (2r + 2)^2) int64, row by row; those outside are at the border, and count as 0."""

    def interpolated(self, values: Tensor) -> Tensor:
        """Map values of the cells, (N, (2r + 2)^2), to those of the window, (N, (2r + 1)^2)."""
        square = values.view(-1, self.side, self.side) * self.inside
        x, y = (part.to(square.dtype)[:, None, None] for part in self.fraction)
        across = torch.lerp(square[:, :, :-1], square[:, :, 1:], x)
        return torch.lerp(across[:, :-1], across[:, 1:], y).flatten(1)


def pooled(maps: Tensor, levels: int) -> list[Tensor]:
    """Return maps (N, C, h, w) and their means over squares of 2, 4, ... cells, as many as `levels`."""
    found = [maps]
    for _ in range(levels - 1):
        if min(maps.shape[-2:]) > 1:
            maps = F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False)
        elif max(maps.shape[-2:]) > 1:
            window = (min(2, maps.shape[-2]), min(2, maps.shape[-1]))
            maps = F.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False)
        found.append(maps)
    return found


def local_correlation(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """Correlate every place with a window of the target at the same place (PWC-Net's cost volume).

    Args:
        source: (B, C, h, w).
        target: (B, C, h, w), warped to the source.
        radius: Cells to each side.

    Returns:
        (B, (2r + 1)^2, h, w), scaled by 1 / sqrt(C).
    """
    height, width = source.shape[-2:]
    padded, side = F.pad(target, (radius,) * 4), 2 * radius + 1
    shifts = [(y, x) for y in range(side) for x in range(side)]
    found = [(source * padded[:, :, y : y + height, x : x + width]).sum(1) for y, x in shifts]
    return torch.stack(found, 1) * source.shape[1] ** -0.5
