"""Pictures for people to look at: heatmaps over frames, feature colours, captioned strips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Dark to bright and even in lightness: nine points of the "inferno" scale, so that grey prints keep their order.
HEAT = np.array(
    [
        *([0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85]),
        *([227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]),
    ]
)
CAPTION_HEIGHT = 26
MARK = (0, 229, 255)
INK, PAPER = (32, 33, 36), (255, 255, 255)


def heat_colours(values: np.ndarray, *, top: float) -> np.ndarray:
    """Colour values (H, W) from 0 to `top` on the heat scale; returns (H, W, 3) uint8."""
    position = np.clip(values / max(top, 1e-12), 0, 1) * (len(HEAT) - 1)
    channels = [np.interp(position, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


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


def strip(panels: Sequence[tuple[str, Image.Image]], *, width: int = 400, gap: int = 8) -> Image.Image:
    """Set captioned panels side by side.

    Args:
        panels: Caption and picture of each.
        width: Width of a panel in pixels.
        gap: Space between panels in pixels.

    Returns:
        One picture.
    """
    scaled = [(text, image.resize((width, round(image.height * width / image.width)))) for text, image in panels]
    height = max(image.height for _, image in scaled) + CAPTION_HEIGHT
    sheet = Image.new("RGB", (len(scaled) * (width + gap) - gap, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for index, (text, image) in enumerate(scaled):
        left = index * (width + gap)
        draw.text((left + 2, 4), text, fill=INK, font=font)
        sheet.paste(image, (left, CAPTION_HEIGHT))
    return sheet


def scale_bar(end: str, *, width: int = 240, height: int = 14) -> Image.Image:
    """Draw the heat scale, labelled 0 on the left and `end` on the right."""
    bar = Image.new("RGB", (width, height + CAPTION_HEIGHT), PAPER)
    values = np.linspace(0, 1, width)[None].repeat(height, axis=0)
    bar.paste(Image.fromarray(heat_colours(values, top=1)), (0, 0))
    draw, font = ImageDraw.Draw(bar), ImageFont.load_default(size=13)
    draw.text((2, height + 4), "0", fill=INK, font=font)
    draw.text((width - 2, height + 4), end, fill=INK, font=font, anchor="ra")
    return bar
