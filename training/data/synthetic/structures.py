"""Thin and holed shapes that no radial outline holds: lattices, ladders, chairs' legs, branches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VARIANTS = 64
SIDE = 128
"""Cells across [-1, 1] of the distances that are stored."""


@lru_cache(maxsize=4)
def structures(device: torch.device) -> Tensor:
    """Return (VARIANTS, SIDE, SIDE) signed distances to the edge, positive inside, in units of an object's radius."""
    generator = np.random.Generator(np.random.Philox(key=13))
    axis = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    x, y = np.meshgrid(axis, axis)
    found = [KINDS[number % len(KINDS)](x, y, generator) for number in range(VARIANTS)]
    return torch.from_numpy(np.stack(found)).float().to(device)


def distance(structure: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Look up distances of points (M, H, W) to the edges of M structures, given by number; in units of the radius."""
    table = structures(u.device)[structure.long()][:, None]
    return F.grid_sample(table, torch.stack([u, v], -1), padding_mode="border", align_corners=False)[:, 0]


def _bar(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> np.ndarray:
    """Distance to the edge of a bar with round ends."""
    along = np.array(end) - start
    share = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-9), 0, 1)
    return half_width - np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])


def _lattice(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Bars along one axis or both, like a fence, a ladder or a window."""
    parts = []
    for axis in (0, 1) if generator.random() < 0.7 else (0,):
        count, width = int(generator.integers(2, 6)), generator.uniform(0.03, 0.1)
        for place in np.linspace(-0.85, 0.85, count) + generator.uniform(-0.05, 0.05, count):
            start, end = ((place, -0.95), (place, 0.95)) if axis == 0 else ((-0.95, place), (0.95, place))
            parts.append(_bar(x, y, start, end, width))
    return np.max(parts, axis=0)


def _chair(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A seat, a back of bars and legs, as seen from one side or the other."""
    lean, width = generator.uniform(-0.35, 0.35), generator.uniform(0.03, 0.07)
    seat, half = generator.uniform(-0.1, 0.2), generator.uniform(0.35, 0.6)
    parts = [_bar(x, y, (-half, seat), (half, seat + lean * 0.3), generator.uniform(0.06, 0.2))]
    for side in np.linspace(-half, half, int(generator.integers(2, 5))):
        parts.append(_bar(x, y, (side, seat), (side * generator.uniform(0.9, 1.3), 0.95), width))
    rails = np.linspace(-half, half, int(generator.integers(2, 7)))
    for side in rails:
        parts.append(_bar(x, y, (side, seat), (side * 0.95 + lean, -0.9), width))
    parts.append(_bar(x, y, (rails[0] * 0.95 + lean, -0.9), (rails[-1] * 0.95 + lean, -0.9), 1.5 * width))
    return np.max(parts, axis=0)


def _branch(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A stem that forks, thinner from fork to fork."""
    parts, tips = [], [((0.0, 0.95), -np.pi / 2 + generator.uniform(-0.3, 0.3), 0.09)]
    for _ in range(4):
        grown = []
        for (right, down), angle, width in tips:
            length = generator.uniform(0.3, 0.6)
            end = (right + length * np.cos(angle), down + length * np.sin(angle))
            parts.append(_bar(x, y, (right, down), end, width))
            for turn in generator.uniform(0.2, 0.9, 2) * (-1, 1):
                grown.append((end, angle + turn, 0.7 * width))
        tips = grown[:5]
    return np.max(parts, axis=0)


def _mesh(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A plate with round holes."""
    count = int(generator.integers(2, 5))
    places = np.linspace(-0.7, 0.7, count)
    radius = generator.uniform(0.25, 0.42) * 1.4 / count
    holes = [
        np.hypot(x - right + generator.uniform(-0.05, 0.05), y - down) - radius for right in places for down in places
    ]
    return np.minimum(np.min(holes, axis=0), 0.97 - np.maximum(np.abs(x), np.abs(y)))


KINDS = (_chair, _lattice, _branch, _chair, _mesh)
