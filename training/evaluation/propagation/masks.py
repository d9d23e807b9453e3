"""How alike two masks are: region similarity J and boundary accuracy F (DAVIS, Perazzi et al. 2016; spec C)."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

TOLERANCE = 0.008
"""How far apart boundaries may be and still match, as a share of the image's diagonal."""


def region_similarity(found: np.ndarray, truth: np.ndarray, *, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two masks.

    Args:
        found: (H, W) bool.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that do not count.

    Returns:
        Between 0 and 1; 1 where both are empty.

    Raises:
        ValueError: The shapes differ.
    """
    found, truth = _counted(found, truth, void)
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else 1.0


def boundary_accuracy(found: np.ndarray, truth: np.ndarray, *, void: np.ndarray | None = None) -> float:
    """F: harmonic mean of the shares of either boundary that lies near the other one.

    Near is up to `tolerance_pixels` away. A mask without a boundary, such as an empty one, finds none of the other's.

    Args:
        found: (H, W) bool.
        truth: (H, W) bool.
        void: (H, W) bool, pixels that do not count.

    Returns:
        Between 0 and 1; 1 where neither has a boundary.

    Raises:
        ValueError: The shapes differ.
    """
    lines = [boundary(mask) for mask in _counted(found, truth, void)]
    lengths = [np.count_nonzero(line) for line in lines]
    if not all(lengths):
        return 0.0 if any(lengths) else 1.0
    radius = tolerance_pixels(*truth.shape)
    near_found, near_truth = (dilate(line, radius) for line in lines)
    precision = np.count_nonzero(lines[0] & near_truth) / lengths[0]
    recall = np.count_nonzero(lines[1] & near_found) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def tolerance_pixels(height: int, width: int) -> int:
    """Return how many pixels apart boundaries may be in an image of that size."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def boundary(mask: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) bool that differ from the one to the right, below, or right below, inside the image."""
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ beyond[:-1, 1:]) | (mask ^ beyond[1:, :-1]) | (mask ^ beyond[1:, 1:])


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return all pixels (H, W) bool whose centre is at most `radius` pixels from one of the mask's."""
    height, width = mask.shape
    grown = np.zeros((height + 2 * radius, width + 2 * radius), dtype=bool)
    rows, columns = np.nonzero(mask)  # boundaries are few pixels, which makes this faster than a filter
    for down, right in product(range(-radius, radius + 1), repeat=2):
        if down**2 + right**2 <= radius**2:
            grown[rows + radius + down, columns + radius + right] = True
    return grown[radius : radius + height, radius : radius + width]


def _counted(found: np.ndarray, truth: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    shapes = {np.shape(found), np.shape(truth)} | ({np.shape(void)} if void is not None else set())
    if len(shapes) > 1 or np.ndim(found) != 2:
        raise ValueError(f"masks must be (height, width) of one size, got {np.shape(found)} and {np.shape(truth)}")
    found, truth = np.asarray(found, dtype=bool), np.asarray(truth, dtype=bool)
    return (found, truth) if void is None else (found & ~void, truth & ~void)
