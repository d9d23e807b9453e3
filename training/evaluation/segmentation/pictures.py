"""One strip per picture: the picture, true and predicted classes laid over it, and what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from midway_hub.drawing import INK, PAPER, strip
from midway_hub.heads import IGNORE
from midway_hub.training.data.segmentation.sample import LabelledImage

OPACITY = 0.6
LINE = 22

Palette = Sequence[tuple[int, int, int]]


def segmentation_strip(
    sample: LabelledImage, labels: np.ndarray, *, classes: Sequence[str], palette: Palette, width: int = 400
) -> Image.Image:
    """Draw a picture, its truth and a prediction side by side, with a legend of the classes that occur.

    Args:
        sample: The picture and its true labels.
        labels: (H, W) predicted class numbers.
        classes: Names of the classes.
        palette: Red, green and blue of every class.
        width: Of a panel in pixels.
    """
    scored = sample.labels != IGNORE
    right = f"{(labels == sample.labels)[scored].mean():.0%}" if scored.any() else "-"
    panels = [
        (sample.name, Image.fromarray(sample.image)),
        ("truth", overlay(sample.image, sample.labels, palette)),
        (f"prediction, {right} of the pixels right", overlay(sample.image, labels, palette)),
    ]
    sheet = strip(panels, width=width)
    shown = sorted(({*np.unique(sample.labels).tolist(), *np.unique(labels).tolist()}) - {IGNORE})
    legend = _legend([(classes[label], palette[label]) for label in shown], width=sheet.width)
    joined = Image.new("RGB", (sheet.width, sheet.height + legend.height), PAPER)
    joined.paste(sheet, (0, 0))
    joined.paste(legend, (0, sheet.height))
    return joined


def overlay(image: np.ndarray, labels: np.ndarray, palette: Palette) -> Image.Image:
    """Lay the classes' colours over a picture; where no class counts (255), it is shown grey.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) class numbers, or 255.
        palette: Red, green and blue of every class.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None].repeat(3, axis=-1)
    colours = np.zeros((IGNORE + 1, 3))
    colours[: len(palette)] = palette
    mixed = (1 - OPACITY) * grey + OPACITY * colours[labels]
    return Image.fromarray(np.where(labels[..., None] == IGNORE, grey, mixed).round().astype(np.uint8))


def _legend(entries: Sequence[tuple[str, tuple[int, int, int]]], *, width: int) -> Image.Image:
    """A swatch and a name for every class, in rows that fit the width."""
    font = ImageFont.load_default(size=14)
    places, x, y = [], 4, 4
    for name, _ in entries:
        space = 16 + 6 + round(font.getlength(name)) + 16
        if x > 4 and x + space > width:
            x, y = 4, y + LINE
        places.append((x, y))
        x += space
    legend = Image.new("RGB", (width, y + LINE), PAPER)
    draw = ImageDraw.Draw(legend)
    for (name, colour), (left, top) in zip(entries, places, strict=True):
        draw.rectangle([left, top, left + 15, top + 15], fill=tuple(colour), outline=INK)
        draw.text((left + 22, top - 1), name, fill=INK, font=font)
    return legend
