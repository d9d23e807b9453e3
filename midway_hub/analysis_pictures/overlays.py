"""What is laid over a frame: heat, boxes around patches, rings around places, colours of patches."""

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
    draw, width = ImageDraw.Draw(marked), _line(frame)
    draw.rectangle([box[0] - width, box[1] - width, box[2] + width, box[3] + width], outline=INK, width=2 * width)
    draw.rectangle([box[0] - width, box[1] - width, box[2] + width, box[3] + width], outline=MARK, width=width)
    return marked


def mark_ring(frame: Image.Image, centre: tuple[float, float], radius: float) -> Image.Image:
    """Draw a ring around a place (x, y) of a frame, all in pixels."""
    marked = frame.copy()
    draw, width, (x, y) = ImageDraw.Draw(marked), _line(frame), centre
    for colour, reach, line in ((INK, radius + width / 2, 2 * width), (MARK, radius, width)):
        draw.ellipse([x - reach, y - reach, x + reach, y + reach], outline=colour, width=line)
    return marked


def colour_image(colours: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Turn colours (h, w, 3) in [0, 1] into a picture of (width, height) pixels whose patches stay visible."""
    return Image.fromarray((colours * 255).round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def _line(frame: Image.Image) -> int:
    return max(2, frame.width // 200)
