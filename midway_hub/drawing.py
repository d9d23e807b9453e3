"""What pictures for people are made of: a heat scale, captions, strips of panels, legends in a corner."""

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
INK, PAPER = (32, 33, 36), (255, 255, 255)


def heat_colours(values: np.ndarray, *, top: float) -> np.ndarray:
    """Colour values (H, W) from 0 to `top` on the heat scale; returns (H, W, 3) uint8."""
    position = np.clip(values / max(top, 1e-12), 0, 1) * (len(HEAT) - 1)
    channels = [np.interp(position, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


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


def inset(picture: Image.Image, legend: Image.Image, *, share: float = 0.5) -> Image.Image:
    """Lay a legend into the lower right corner; a picture that it would hide too much of stays as it is.

    Args:
        picture: What is explained.
        legend: What explains it.
        share: Part of the picture's width and height that the legend may take.

    Returns:
        A picture of the picture's size.
    """
    if legend.width > share * picture.width or legend.height > share * picture.height:
        return picture
    marked = picture.copy()
    marked.paste(legend, (picture.width - legend.width, picture.height - legend.height))
    return marked
