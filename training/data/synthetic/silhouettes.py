"""Outlines of objects: the distance from the centre to the edge in every direction, as tables.

Directions are numbered by the diamond angle, y / (|x| + |y|) unrolled to [0, 4): it grows with the angle, and needs no
function that differs between devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic.classes import SHAPES

DIRECTIONS = 2048
VARIANTS = 48
HARMONICS = 6


@dataclass(frozen=True)
class Silhouettes:
    """All outlines there are, `VARIANTS` of each shape in the order of `SHAPES`; radii are at most 1.

    Attributes:
        edge: (outlines · DIRECTIONS,) radius of the edge in each direction.
        slant: (outlines · DIRECTIONS,) what turns the distance to the edge along that direction into the distance to
            it: 1 where the edge is perpendicular, below 1 where it is not.
        hole: (outlines,) radius of the hole as a share of the edge's, -1 for none.
    """

    edge: Tensor
    slant: Tensor
    hole: Tensor

    def look_up(self, outline: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the edge's radius and slant in the direction of points.

        Args:
            outline: Row of the outline, int32, broadcastable to the points.
            u: Coordinates of points relative to the centre.
            v: Likewise.
        """
        turn = v / (u.abs() + v.abs()).clamp_(min=1e-20)
        side = torch.copysign(torch.ones_like(u), u)
        turn = turn.mul_(side).add_(1).sub_(side)  # u < 0: 2 - turn
        place = (turn.mul_(DIRECTIONS / 4).round_().int() & (DIRECTIONS - 1)).add_(outline * DIRECTIONS).reshape(-1)
        return self.edge.index_select(0, place).view(u.shape), self.slant.index_select(0, place).view(u.shape)


@lru_cache(maxsize=4)
def silhouettes(device: torch.device) -> Silhouettes:
    """Return the outlines on a device; they are the same for all worlds."""
    generator = np.random.Generator(np.random.Philox(key=7))
    angles = _angles(np.arange(DIRECTIONS) * 4 / DIRECTIONS)
    radii = np.stack([OUTLINES[shape](angles, generator) for shape in SHAPES for _ in range(VARIANTS)])
    radii /= radii.max(axis=1, keepdims=True)
    slope = (np.roll(radii, -1, 1) - np.roll(radii, 1, 1)) / _steps(angles) / radii
    hole = np.full((len(SHAPES), VARIANTS), -1.0)
    hole[SHAPES.index("ring")] = generator.uniform(0.45, 0.7, VARIANTS)
    tables = (radii, 1 / np.sqrt(1 + slope**2), hole)
    return Silhouettes(*(torch.from_numpy(table.ravel()).float().to(device) for table in tables))


def _angles(diamond: np.ndarray) -> np.ndarray:
    """Angles in radians from the positive x axis, increasing, of diamond angles in [0, 4)."""
    y = np.select([diamond < 1, diamond < 3], [diamond, 2 - diamond], diamond - 4)
    x = (1 - np.abs(y)) * np.where((diamond < 1) | (diamond > 3), 1, -1)
    return np.unwrap(np.arctan2(y, x))


def _steps(angles: np.ndarray) -> np.ndarray:
    return (np.roll(angles, -1) - np.roll(angles, 1)) % (2 * np.pi)


def _ellipse(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    ratio = generator.uniform(0.6, 1)
    return ratio / np.hypot(ratio * np.cos(angles), np.sin(angles))


def _box(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    ratio, power = generator.uniform(0.45, 1), generator.uniform(6, 30)
    return (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles) / ratio) ** power) ** (-1 / power)


def _triangle(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    normals = np.pi / 2 + np.arange(3) * 2 * np.pi / 3 + generator.uniform(-0.25, 0.25, 3)
    sides = np.clip(np.cos(angles[:, None] - normals), 0.05, None) / generator.uniform(0.8, 1.2, 3)
    return (sides**24).sum(axis=1) ** (-1 / 24)


def _star(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    points, inner = int(generator.integers(4, 8)), generator.uniform(0.35, 0.55)
    across = np.abs((angles * points / (2 * np.pi)) % 1 - 0.5) * 2 * np.pi / points
    tip, notch = 1.0, np.array([inner * np.cos(np.pi / points), inner * np.sin(np.pi / points)])
    normal = np.array([notch[1], tip - notch[0]])
    return normal[0] * tip / (normal[0] * np.cos(across) + normal[1] * np.sin(across))


def _blob(angles: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    orders = np.arange(2, 2 + HARMONICS)
    heights = generator.normal(size=HARMONICS) * 0.45 / (orders - 1)
    waves = np.cos(orders * angles[:, None] + generator.uniform(0, 2 * np.pi, HARMONICS))
    return np.exp(np.clip(waves @ heights, -0.9, 0.9))


OUTLINES = {
    "ellipse": _ellipse, "box": _box, "triangle": _triangle, "star": _star, "ring": _ellipse, "blob": _blob,
}  # fmt: skip
