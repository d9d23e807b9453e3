"""Pictures of a segmentation: classes laid over the frame, their legend, and label maps as indexed PNGs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from midway_hub.class_notes import WORLD_HEADING, are_of_worlds
from midway_hub.drawing import INK, PAPER
from midway_hub.heads import IGNORE

LINE = 1.4
"""Height of a legend's line per height of its letters."""

Palette = Sequence[tuple[int, int, int]]


def overlay_labels(frame: Image.Image, labels: np.ndarray, palette: Palette, *, opacity: float = 0.6) -> Image.Image:
    """Lay the classes' colours over a frame.

    Args:
        frame: The picture underneath, of W×H pixels.
        labels: (H, W) class numbers; where it is 255 the frame shows.
        palette: Red, green and blue of every class.
        opacity: Share of the colours in the result, 0 to 1.

    Returns:
        A picture of the frame's size.

    Raises:
        ValueError: Labels of another size or of no class, or an opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, got {opacity}")
    labels = _checked(labels, palette)
    if labels.shape != (frame.height, frame.width):
        raise ValueError(f"labels have shape {labels.shape}, the frame has {frame.height}×{frame.width} pixels")
    colours = np.asarray([*palette, *[(0, 0, 0)] * (IGNORE + 1 - len(palette))], dtype=np.float32)[labels]
    share = np.where(labels == IGNORE, 0.0, opacity)[..., None]
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float32)
    return Image.fromarray((pixels * (1 - share) + colours * share).round().astype(np.uint8))


def label_map(labels: np.ndarray, palette: Palette) -> Image.Image:
    """Make a picture whose pixels are the class numbers and whose colours are the palette's: an indexed PNG.

    Args:
        labels: (H, W) class numbers, 255 where there is none (black).
        palette: Red, green and blue of every class.

    Returns:
        A picture of mode P, of W×H pixels.

    Raises:
        ValueError: Labels of no class.
    """
    image = Image.fromarray(_checked(labels, palette).astype(np.uint8))
    image.putpalette([*np.asarray(palette, dtype=np.uint8).flatten().tolist(), *[0] * 3 * (IGNORE + 1 - len(palette))])
    return image


def most_common(labels: np.ndarray, count: int) -> list[int]:
    """Return the classes that cover most of some label maps, at most `count`, in the order of their numbers."""
    pixels = np.bincount(np.asarray(labels).ravel(), minlength=IGNORE + 1)[:IGNORE]
    order = np.argsort(-pixels, kind="stable")[:count]
    return sorted(int(label) for label in order if pixels[label])


def class_legend(classes: Sequence[str], palette: Palette, shown: Sequence[int], *, font_size: int = 14) -> Image.Image:
    """Draw a colour and a name per class, below a heading where the classes are those of synthetic worlds.

    Args:
        classes: Names of all classes.
        palette: Red, green and blue of all classes.
        shown: Numbers of the classes to list.
        font_size: Height of the letters in pixels.

    Returns:
        A picture, as large as the list needs.
    """
    font, line = ImageFont.load_default(size=font_size), round(LINE * font_size)
    heading = [WORLD_HEADING] if are_of_worlds(classes) else []
    width = max((font.getlength(text) for text in (*heading, *(classes[label] for label in shown))), default=0)
    legend = Image.new("RGB", (round(width) + 2 * line, max(1, line * (len(heading) + len(shown)))), PAPER)
    draw = ImageDraw.Draw(legend)
    for text in heading:
        draw.text((4, line / 2), text, fill=INK, font=font, anchor="lm")
    for row, label in enumerate(shown, start=len(heading)):
        top = row * line
        draw.rectangle([3, top + 3, line - 3, top + line - 4], fill=tuple(palette[label]), outline=INK)
        draw.text((line + 4, top + line / 2), classes[label], fill=INK, font=font, anchor="lm")
    return legend


def _checked(labels: np.ndarray, palette: Palette) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers of shape (height, width), got {labels.dtype} {labels.shape}")
    wrong = labels[((labels < 0) | (labels >= len(palette))) & (labels != IGNORE)]
    if wrong.size:
        raise ValueError(f"labels hold {wrong[0]}; there are classes 0 to {len(palette) - 1}, and {IGNORE}")
    return labels
