"""Pictures for people to look at: heatmaps over frames, marked patches, feature colours."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from midway_hub.drawing import INK, heat_colours

MARK = (0, 229, 255)


def overlay_heat(frame: Image.Image, heatmap: np.ndarray, *, top: float) -> Image.Image:
    """Lay a heatmap over a frame: the hotter, the less of the frame shows through.

    Args:
        frame: The picture underneath.
        heatmap: (H, W) scores at the frame's size.
        top: The score that the hottest colour stands for.

    Returns:
        A picture of the frame's size.
    """
    amount = np.clip(heatmap / max(top, 1e-12), 0, 1)[..., None] ** 0.7 * 0.85
    grey = np.asarray(frame.convert("L").convert("RGB"), dtype=float)
    return Image.fromarray((grey * (1 - amount) + heat_colours(heatmap, top=top) * amount).round().astype(np.uint8))


def mark_box(frame: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Draw a box (left, top, right, bottom, in pixels) around a part of a frame."""
    marked = frame.copy()
    draw, width = ImageDraw.Draw(marked), max(2, frame.width // 160)
    draw.rectangle([box[0] - width, box[1] - width, box[2] + width, box[3] + width], outline=INK, width=2 * width)
    draw.rectangle([box[0] - width, box[1] - width, box[2] + width, box[3] + width], outline=MARK, width=width)
    return marked


def colour_image(colours: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Turn colours (h, w, 3) in [0, 1] into a picture of (width, height) pixels whose patches stay visible."""
    return Image.fromarray((colours * 255).round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
