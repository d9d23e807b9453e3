"""Objects over frames, in colours that are told apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from midway_hub.heads import IGNORE
from midway_hub.label_pictures import overlay_labels

FIRST_HUE, TURN = 0.55, 0.618033988749895
"""Hues a golden ratio apart around the circle never fall together."""


@cache
def object_palette() -> tuple[tuple[int, int, int], ...]:
    """Return a colour per label from 0 to 254: black for the background, then bright ones; neighbours differ most."""
    colours = [(0, 0, 0)]
    for number in range(IGNORE - 1):
        value = (1.0, 0.8, 0.62)[number // 6 % 3]  # hues repeat nearly after some, lightness then tells them apart
        red, green, blue = colorsys.hsv_to_rgb((FIRST_HUE + number * TURN) % 1, 0.85, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


def overlay_objects(frame: np.ndarray, labels: np.ndarray, *, opacity: float = 0.6) -> Image.Image:
    """Lay the colours of objects over a frame; where the label is 0 or 255 the frame shows.

    Args:
        frame: (H, W, 3) uint8.
        labels: (H, W), whole numbers from 0 to 255.
        opacity: Share of the colours, 0 to 1.

    Returns:
        A picture of the frame's size.
    """
    shown = np.where(labels == 0, IGNORE, labels)
    return overlay_labels(Image.fromarray(frame), shown, object_palette(), opacity=opacity)


def object_legend_names(ids: Sequence[int]) -> tuple[str, ...]:
    """Return what a legend calls the labels 0 to the largest of some ids."""
    return ("background", *(f"object {label}" for label in range(1, max(ids, default=0) + 1)))


def draw_keypoints(frame: np.ndarray, keypoints: np.ndarray) -> Image.Image:
    """Draw keypoints (K, 2), x and y in pixels, as dots on a frame (H, W, 3) uint8; NaN ones are left out."""
    picture = Image.fromarray(frame)
    draw, radius = ImageDraw.Draw(picture), max(2, min(picture.size) // 60)
    for number, (x, y) in enumerate(keypoints):
        if np.isfinite(x) and np.isfinite(y):
            draw.circle((x, y), radius, fill=object_palette()[number + 1], outline=(255, 255, 255))
    return picture
