"""Random boxes by torchvision's RandomResizedCrop rule."""

from __future__ import annotations

import math

import numpy as np

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""

TRIES = 10


def random_box(
    within: Box, area: tuple[float, float], aspect: tuple[float, float], generator: np.random.Generator
) -> Box:
    """Draw a box inside another one.

    Args:
        within: The outer box, at least one pixel.
        area: Bounds of the box's area as a share of the outer one.
        aspect: Bounds of width over height, drawn evenly in its logarithm.
        generator: Where the randomness comes from.

    Returns:
        The first of ten draws that fits; failing these, the largest centred box of a permitted aspect.
    """
    top, left, height, width = within
    logarithms = np.log(aspect)
    for _ in range(TRIES):
        pixels = height * width * generator.uniform(*area)
        ratio = math.exp(generator.uniform(*logarithms))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            i, j = generator.integers(height - h + 1), generator.integers(width - w + 1)
            return top + int(i), left + int(j), h, w
    h, w = min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))
    return top + (height - h) // 2, left + (width - w) // 2, max(h, 1), max(w, 1)
