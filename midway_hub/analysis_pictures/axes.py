"""Plots with labelled axes, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from midway_hub.drawing import INK, PAPER

GRID = (225, 226, 230)
SMOOTH = 2
"""Plots are drawn this much larger and then reduced, which smooths lines and dots."""

Range = tuple[float, float]
Colour = tuple[int, int, int]


class Axes:
    """A rectangle with a scale across and one upwards, on paper of its own.

    Args:
        title: What is written above.
        across: What the scale across counts, with its unit.
        up: What the scale upwards counts.
        x: Ends of the scale across.
        y: Ends of the scale upwards; the larger one may come first, for scales that go down.
        size: Width and height of the paper in pixels.
    """

    def __init__(
        self, title: str, *, across: str, up: str, x: Range, y: Range, size: tuple[int, int] = (420, 400)
    ) -> None:
        self.x, self.y = _spread(x), _spread(y)
        self._size = size
        self._picture = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), PAPER)
        self._draw = ImageDraw.Draw(self._picture)
        self._font = ImageFont.load_default(size=13 * SMOOTH)
        self._box = (66 * SMOOTH, 34 * SMOOTH, (size[0] - 14) * SMOOTH, (size[1] - 48) * SMOOTH)
        self._label(title, across, up)

    def picture(self) -> Image.Image:
        """Return what was drawn, with the frame and ticks over it."""
        for value in ticks(self.x):
            left = self._at(value, self.y[0])[0]
            self._draw.line([left, self._box[3], left, self._box[3] + 5 * SMOOTH], fill=INK, width=SMOOTH)
            self._text((left, self._box[3] + 7 * SMOOTH), f"{value:g}", anchor="ma")
        for value in ticks(self.y):
            top = self._at(self.x[0], value)[1]
            self._draw.line([self._box[0] - 5 * SMOOTH, top, self._box[0], top], fill=INK, width=SMOOTH)
            self._text((self._box[0] - 8 * SMOOTH, top), f"{value:g}", anchor="rm")
        self._draw.rectangle(self._box, outline=INK, width=SMOOTH)
        return self._picture.reduce(SMOOTH)

    def grid(self) -> None:
        """Draw thin lines at the ticks, to be drawn over."""
        for value in ticks(self.x):
            left = self._at(value, self.y[0])[0]
            self._draw.line([left, self._box[1], left, self._box[3]], fill=GRID, width=SMOOTH)
        for value in ticks(self.y):
            top = self._at(self.x[0], value)[1]
            self._draw.line([self._box[0], top, self._box[2], top], fill=GRID, width=SMOOTH)

    def line(self, points: np.ndarray, colours: Sequence[Colour]) -> None:
        """Join points (n, 2) by a line, each piece in the colour of the point that it starts from."""
        placed = [self._at(*point) for point in points]
        for start, end, colour in zip(placed, placed[1:], colours, strict=False):
            self._draw.line([*start, *end], fill=colour, width=2 * SMOOTH)

    def dots(self, points: np.ndarray, colours: Sequence[Colour], *, radius: float = 3.5) -> None:
        """Draw a dot at each of some points (n, 2)."""
        reach = radius * SMOOTH
        for point, colour in zip(points, colours, strict=True):
            x, y = self._at(*point)
            self._draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=colour, outline=INK)

    def ring(self, point: Sequence[float], name: str) -> None:
        """Draw a ring around a point and write a name beside it."""
        x, y = self._at(*point)
        reach = 8 * SMOOTH
        for colour, more in ((PAPER, 2 * SMOOTH), (INK, 0)):
            box = [x - reach - more, y - reach - more, x + reach + more, y + reach + more]
            self._draw.ellipse(box, outline=colour, width=2 * SMOOTH + 2 * more)
        beyond = x > (self._box[0] + self._box[2]) / 2
        side = (x - reach - 3 * SMOOTH, "rm") if beyond else (x + reach + 3 * SMOOTH, "lm")
        self._text((side[0], y), name, anchor=side[1], halo=True)

    def fill(self, pixels: np.ndarray) -> None:
        """Fill the rectangle with a picture (h, w, 3) uint8, stretched; its cells stay visible."""
        left, top, right, bottom = self._box
        filling = Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.NEAREST)
        self._picture.paste(filling, (left, top))

    def _label(self, title: str, across: str, up: str) -> None:
        self._text((self._box[0], 8 * SMOOTH), title, anchor="la")
        middle = (self._box[0] + self._box[2]) / 2
        self._text((middle, (self._size[1] - 6) * SMOOTH), across, anchor="md")
        width = round(self._font.getlength(up)) + 4 * SMOOTH
        words = Image.new("RGB", (width, 18 * SMOOTH), PAPER)
        ImageDraw.Draw(words).text((width / 2, 9 * SMOOTH), up, fill=INK, font=self._font, anchor="mm")
        upright = words.rotate(90, expand=True)
        self._picture.paste(upright, (2 * SMOOTH, round((self._box[1] + self._box[3] - width) / 2)))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self._box
        return (
            left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (right - left),
            bottom + (y - self.y[0]) / (self.y[1] - self.y[0]) * (top - bottom),
        )

    def _text(self, place: tuple[float, float], text: str, *, anchor: str, halo: bool = False) -> None:
        halo_width = 3 * SMOOTH if halo else 0
        self._draw.text(
            place, text, fill=INK, font=self._font, anchor=anchor, stroke_width=halo_width, stroke_fill=PAPER
        )


def ticks(ends: Range, *, count: int = 5) -> list[float]:
    """Return about `count` round numbers between two ends, in their order."""
    low, high = sorted(ends)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.8 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [round(number * step, 12) for number in range(first, last + 1)]
    return values if ends[0] <= ends[1] else values[::-1]


def padded(values: np.ndarray, *, share: float = 0.08) -> Range:
    """Return ends that leave some space around values."""
    low, high = float(np.min(values)), float(np.max(values))
    space = share * ((high - low) or 1.0)
    return low - space, high + space


def _spread(ends: Range) -> Range:
    return ends if ends[0] != ends[1] else (ends[0], ends[0] + 1)
