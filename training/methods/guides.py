"""Where CMP is told of motion: a sparse grid, and the middles of what moves as one (Zhan et al. 2019, section 3.2)."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

EDGE, LEAST_PEAK = 0.1, 0.01
"""Share of the steepest change of flow from which on a place is a motion edge; the steepest counts for 0.01 or more."""
LONGEST = 400
"""Pixels of the longest side at which edges are looked for."""


def draw_guides(
    flow: np.ndarray,
    valid: np.ndarray,
    generator: np.random.Generator,
    *,
    background_ratio: float,
    distance: int,
    most: int | None,
) -> np.ndarray:
    """Choose guide pixels.

    Args:
        flow: (2, H, W) in pixels.
        valid: (H, W) bool; guides are among these.
        generator: Where the numbers come from.
        background_ratio: Share of the pixels that a regular grid has.
        distance: Side in pixels of the window in which a middle is the only one; an odd number.
        most: Guides at most; None: all.

    Returns:
        (H, W) bool.
    """
    height, width = valid.shape
    places = [*_grid(height, width, background_ratio), *_middles(_filled(flow, valid), generator, distance)]
    places = [place for place in dict.fromkeys(places) if valid[place]]
    chosen = generator.permutation(len(places))[:most]
    mask = np.zeros((height, width), bool)
    for number in chosen.tolist():
        mask[places[number]] = True
    return mask


def _grid(height: int, width: int, ratio: float) -> list[tuple[int, int]]:
    """A centred regular grid whose stride goes by the share of pixels."""
    stride = max(1, int(math.sqrt(1 / ratio)))
    rows, columns = (range((side - 1) % stride // 2, side, stride) for side in (height, width))
    return [(row, column) for row in rows for column in columns]


def _filled(flow: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Give pixels that are not valid the flow of the nearest that is, so that their border is no motion edge."""
    if valid.all() or not valid.any():
        return flow
    rows, columns = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return flow[:, rows, columns]


def _middles(flow: np.ndarray, generator: np.random.Generator, distance: int) -> list[tuple[int, int]]:
    """Places farthest from motion edges, each the only one in its window, not at the border."""
    shrink = max(1, max(flow.shape[1:]) // LONGEST)
    small = flow[:, ::shrink, ::shrink]
    steep = sum(np.hypot(*(ndimage.sobel(axis, axis=way, mode="reflect") for way in (0, 1))) for axis in small)
    edges = steep / max(float(steep.max()), LEAST_PEAK) > EDGE
    away = ndimage.distance_transform_edt(~edges) if edges.any() else np.zeros(edges.shape)
    peaks = (away == ndimage.maximum_filter(away, size=distance)) & (away > 0)
    peaks[[0, -1], :] = peaks[:, [0, -1]] = False
    found = np.argwhere(peaks)
    kept: list[np.ndarray] = []
    for place in found[generator.permutation(len(found))]:
        if all(np.abs(place - other).max() >= (distance - 1) / 2 for other in kept):
            kept.append(place)
    return [(int(row) * shrink, int(column) * shrink) for row, column in kept]
