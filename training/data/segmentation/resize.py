"""Resizing as mmsegmentation does it (mmcv on OpenCV), of a whole picture or of a window of the result."""

from __future__ import annotations

import numpy as np

ONE = 1 << 11  # weights are whole numbers of this, as OpenCV's INTER_RESIZE_COEF_SCALE


def rescaled_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Return the size that a picture takes within a scale, its proportions kept: mmcv's rule.

    Args:
        height: Rows of the picture.
        width: Columns of the picture.
        scale: Largest long side and largest short side, in any order.

    Returns:
        Height and width.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_bilinear(
    image: np.ndarray, size: tuple[int, int], *, rows: slice = slice(None), columns: slice = slice(None)
) -> np.ndarray:
    """Resize a picture, or make a window of the resized one alone.

    OpenCV's INTER_LINEAR in its 8-bit arithmetic: pixels are squares (`align_corners=False`), and nothing is smoothed
    on the way down.

    Args:
        image: (H, W, 3) uint8.
        size: Height and width of the whole result.
        rows: Rows of the result to make.
        columns: Columns of the result to make.

    Returns:
        (h, w, 3) uint8.
    """
    if tuple(size) == image.shape[:2]:
        return image[rows, columns].copy()
    upper, lower, down = _neighbours(image.shape[0], size[0], rows)
    left, right, across = _neighbours(image.shape[1], size[1], columns)
    first = int(upper.min())
    strip = image[first : int(lower.max()) + 1].astype(np.int32)
    wide = strip[:, left] * across[0][:, None]
    wide += strip[:, right] * across[1][:, None]
    wide >>= 4
    result = wide[upper - first] * down[0][:, None, None] >> 16
    result += wide[lower - first] * down[1][:, None, None] >> 16
    return (result + 2 >> 2).astype(np.uint8)


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels (H, W) to (h, w), each pixel the one at the rounded-down place, as OpenCV's INTER_NEAREST."""
    if tuple(size) == labels.shape:
        return labels
    rows, columns = (
        np.minimum((np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)  # rounded as OpenCV rounds
        for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[rows[:, None], columns]


def _neighbours(old: int, new: int, part: slice) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """For some of `new` places: the two of `old` that each lies between, and their weights, of 2^11 together."""
    place = ((np.arange(new)[part] + 0.5) * (1 / (new / old)) - 0.5).astype(np.float32)
    low = np.floor(place)
    share = place - low
    first, second = (np.rint(weight * np.float32(ONE)).astype(np.int32) for weight in (1 - share, share))
    index = low.astype(np.int64)
    return index.clip(0, old - 1), (index + 1).clip(0, old - 1), (first, second)
