"""Correlation between all places of two frames, looked up around where each place is thought to have gone (RAFT)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_VOLUME = 2**26
"""Correlations of one level that are kept in memory, 256 MiB; level 0 of frames above half a megapixel has more."""
GATHERED = 2**20
"""Numbers that windows looked up on demand take at a time: few enough to stay in a CPU's cache."""


class Correlations:
    """Correlations of every place with a window of others, at every level of a pyramid over the target.

    As correlations are linear, means over squares of the target's cells are correlations with means of its features.
    What a level keeps depends on how much it would be: both kinds give the same numbers.

    Args:
        source: (B, C, h, w).
        target: (B, C, h, w).
        levels: Levels of the pyramid, each of half the size of the one before.
        radius: Cells to each side of a window.
    """

    def __init__(self, source: Tensor, target: Tensor, *, levels: int, radius: int) -> None:
        self.radius = radius
        ours = source.flatten(2).transpose(1, 2)
        kept = len(source) * ours.shape[1]
        self.levels = [
            (KeptLevel if kept * level.shape[-2] * level.shape[-1] <= LARGEST_VOLUME else LevelOnDemand)(ours, level)
            for level in pooled(target, levels)
        ]

    def __call__(self, places: Tensor) -> Tensor:
        """Map places (B, 2, h, w), x then y in cells, to (B, levels * (2r + 1)^2, h, w)."""
        batch, _, height, width = places.shape
        points = places.permute(0, 2, 3, 1).reshape(-1, 2)
        found = [level.windows(points, index, self.radius) for index, level in enumerate(self.levels)]
        return torch.cat(found, 1).view(batch, height, width, -1).permute(0, 3, 1, 2)


class KeptLevel:
    """Keeps the correlations of all places with all cells: fast, and memory grows as the square of the frame.

    Args:
        source: (B, N, C).
        target: (B, C, rows, columns).
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self.size = (target.shape[-2], target.shape[-1])
        self.volume = (source @ target.flatten(2)).float().flatten(0, 1)

    def windows(self, points: Tensor, level: int, radius: int) -> Tensor:
        """Map points (B N, 2) in cells of level 0 to (B N, (2r + 1)^2)."""
        window = Window(points, level, radius, *self.size)
        return window.interpolated(self.volume.gather(1, window.cells))


class LevelOnDemand:
    """Keeps the features alone and correlates them when asked: slower, and memory grows as the frame does.

    Args:
        source: (B, N, C).
        target: (B, C, rows, columns).
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self.size = (target.shape[-2], target.shape[-1])
        self.source = source.float()
        self.target = target.float().flatten(2).transpose(1, 2).contiguous()

    def windows(self, points: Tensor, level: int, radius: int) -> Tensor:
        """Map points (B N, 2) in cells of level 0 to (B N, (2r + 1)^2)."""
        at_once = max(1, GATHERED // ((2 * radius + 2) ** 2 * self.source.shape[-1]))
        found = []
        for ours, theirs, all_points in zip(self.source, self.target, points.chunk(len(self.source)), strict=True):
            for own, some in zip(ours.split(at_once), all_points.split(at_once), strict=True):
                window = Window(some, level, radius, *self.size)
                features = theirs.index_select(0, window.cells.flatten()).view(*window.cells.shape, -1)
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
        square = (min(2, maps.shape[-2]), min(2, maps.shape[-1]))
        maps = F.avg_pool2d(maps, square, ceil_mode=True, count_include_pad=False)
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
