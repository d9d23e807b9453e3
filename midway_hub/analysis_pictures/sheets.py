"""Rows of panels on one sheet, with sentences that say what is seen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from midway_hub.drawing import INK, PAPER

FONT_SIZE, LINE, MARGIN = 15, 21, 8


def stacked(rows: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """Set pictures below each other, on the left."""
    height = sum(row.height + gap for row in rows) - gap
    sheet = Image.new("RGB", (max(row.width for row in rows), height), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + gap
    return sheet


def captioned_sheet(
    picture: Image.Image, sentences: Sequence[str], *, legend: Image.Image | None = None
) -> Image.Image:
    """Set a picture on a sheet with sentences, and perhaps a legend, below it.

    Args:
        picture: What is shown.
        sentences: Each begins a line, and is broken where it is too long.
        legend: What explains the colours.

    Returns:
        One picture.
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    least = max((font.getlength(word) for sentence in sentences for word in sentence.split()), default=0)
    width = max(picture.width, legend.width if legend else 0, round(least), 320) + 2 * MARGIN
    letters = max(1, int((width - 2 * MARGIN) / (0.52 * FONT_SIZE)))
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, letters)]
    legend_height = legend.height + MARGIN if legend else 0
    sheet = Image.new("RGB", (width, picture.height + 3 * MARGIN + legend_height + LINE * len(lines)), PAPER)
    sheet.paste(picture, (MARGIN, MARGIN))
    top = picture.height + 2 * MARGIN
    if legend is not None:
        sheet.paste(legend, (MARGIN, top))
        top += legend_height
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, top + LINE * number), line, fill=INK, font=font)
    return sheet
