"""Choosing a crop in which no class takes nearly everything."""

from __future__ import annotations

import numpy as np

from midway_hub.heads import IGNORE

RETRIES = 10


def choose_crop(
    labels: np.ndarray, crop: tuple[int, int], cat_max_ratio: float, generator: np.random.Generator
) -> tuple[slice, slice]:
    """Draw a crop, and up to ten others while one class fills too much of it; the last one is taken as it is.

    As mmsegmentation's `RandomCrop`; pixels that count nowhere are left out of the shares.

    Args:
        labels: (H, W) uint8.
        crop: Height and width; where the labels are smaller, all of that axis is taken.
        cat_max_ratio: Share of the crop's labelled pixels that a class has to stay below; 1 takes the first crop.
        generator: Where the random numbers come from.

    Returns:
        The rows and the columns.
    """
    window = _draw(labels.shape, crop, generator)
    if cat_max_ratio < 1:
        for _ in range(RETRIES):
            if _largest_share(labels[window]) < cat_max_ratio:
                break
            window = _draw(labels.shape, crop, generator)
    return window


def _draw(shape: tuple[int, ...], crop: tuple[int, int], generator: np.random.Generator) -> tuple[slice, slice]:
    rows, columns = (
        slice(start := int(generator.integers(max(size - wanted, 0) + 1)), start + min(wanted, size))
        for size, wanted in zip(shape, crop, strict=True)
    )
    return rows, columns


def _largest_share(labels: np.ndarray) -> float:
    """Share of the class with most pixels; 1 where nothing counts."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    total = counts.sum()
    return float(counts.max() / total) if total else 1.0
