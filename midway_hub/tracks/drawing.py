"""Tracked points over a frame: where they are, where they came from, and which of them are lost."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from midway_hub.analysis.tracks import TrackedFrame
from midway_hub.drawing import INK, PAPER

# Okabe and Ito's colours, which people who confuse red and green tell apart; more points get hues in between.
COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
GOLDEN = 0.618034
SMOOTH = 2
"""Marks are drawn this much larger and then reduced, which smooths their edges."""
LOST_OPACITY = 0.45
LOST_MEANS = "lost: where last seen"
GREY = (150, 150, 150)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class TrackLook:
    """How tracks are shown.

    Attributes:
        trail: How many frames back a point's way is drawn.
        numbers: Whether points carry their number, from 1; by default if there are at most 40.
    """

    trail: int = 24
    numbers: bool | None = None

    def __post_init__(self) -> None:
        if self.trail < 0:
            raise ValueError(f"trail must be at least 0 frames, got {self.trail}")

    def picture(self, frame: np.ndarray, tracked: Sequence[TrackedFrame], caption: Sequence[str] = ()) -> Image.Image:
        """Draw points over a frame.

        Args:
            frame: (H, W, 3) uint8.
            tracked: Where the points are: the last is this frame, those before it are the ways that led there.
            caption: What to write under the frame: parts, of which as many are written as fit.

        Returns:
            A picture of the frame's width, higher than the frame by two lines: the caption and the legend.
        """
        now = tracked[-1]
        colours = point_colours(len(now.lost))
        marks = Image.new("RGBA", (frame.shape[1] * SMOOTH, frame.shape[0] * SMOOTH))
        unit = max(1.0, min(frame.shape[:2]) / 240) * SMOOTH
        pen = ImageDraw.Draw(marks)
        for point in np.argsort(~now.lost, kind="stable"):  # lost ones first, under the others
            _draw_trail(pen, tracked[-1 - self.trail :], point, colours[point], unit)
            _draw_point(pen, now, point, colours[point], unit)
        if self.numbers or (self.numbers is None and len(now.lost) <= 40):
            _draw_numbers(pen, now, colours, unit)
        drawn = Image.fromarray(frame).convert("RGBA")
        drawn.alpha_composite(marks.reduce(SMOOTH))
        return _with_caption(drawn.convert("RGB"), caption, int(now.lost.sum()), len(now.lost))


DEFAULT_LOOK = TrackLook()


def point_colours(count: int) -> list[Colour]:
    """Return one colour per point, red, green and blue from 0 to 255; a point keeps its colour whatever the count."""
    colours = list(COLOURS)
    for number in range(count - len(COLOURS)):
        saturation, value = ((0.9, 1.0), (0.6, 0.85))[number % 2]
        red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, saturation, value)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours[:count]


def _draw_trail(pen: ImageDraw.ImageDraw, way: Sequence[TrackedFrame], point: int, colour: Colour, unit: float) -> None:
    """Draw a point's way, fainter the longer ago; there is none where it was lost."""
    for age, (start, end) in enumerate(pairwise(way)):
        if not (start.lost[point] or end.lost[point]):
            line = [_on_layer(step.positions[point]) for step in (start, end)]
            opacity = (age + 1) / len(way) * (LOST_OPACITY if way[-1].lost[point] else 1)
            pen.line(line, fill=(*colour, round(255 * opacity)), width=round(1.6 * unit), joint="curve")


def _draw_point(pen: ImageDraw.ImageDraw, now: TrackedFrame, point: int, colour: Colour, unit: float) -> None:
    """Draw a disc, or a faint cross where it was last seen."""
    x, y = _on_layer(now.positions[point])
    if not now.lost[point]:
        reach = 3.5 * unit
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], (*colour, 255), (*INK, 255), round(0.8 * unit))
        return
    reach, opacity = 3 * unit, round(255 * LOST_OPACITY)
    for ink, width in ((INK, 3.2), (colour, 1.8)):
        for side in (-1, 1):
            line = [(x - reach, y - side * reach), (x + reach, y + side * reach)]
            pen.line(line, (*ink, opacity), round(width * unit))


def _draw_numbers(pen: ImageDraw.ImageDraw, now: TrackedFrame, colours: Sequence[Colour], unit: float) -> None:
    """Write each point's number beside it, on the side where the frame has room."""
    font = ImageFont.load_default(size=9 * unit)
    for point, colour in enumerate(colours):
        (x, y), opacity = _on_layer(now.positions[point]), round(255 * (LOST_OPACITY if now.lost[point] else 1))
        lighter = tuple((part + 255) // 2 for part in colour)  # dark colours could not be read on the dark edge
        right, below = x < pen.im.size[0] - 20 * unit, y < 12 * unit
        place = (x + (5 if right else -5) * unit, y + (3 if below else -3) * unit)
        pen.text(
            place,
            str(point + 1),
            fill=(*lighter, opacity),
            font=font,
            anchor=("l" if right else "r") + ("a" if below else "d"),
            stroke_width=round(unit),
            stroke_fill=(*INK, opacity),
        )


def _on_layer(position: np.ndarray) -> tuple[float, float]:
    """Where a pixel's centre lies on the layer that marks are drawn on."""
    return (float(position[0]) + 0.5) * SMOOTH - 0.5, (float(position[1]) + 0.5) * SMOOTH - 0.5


def _with_caption(picture: Image.Image, caption: Sequence[str], lost: int, count: int) -> Image.Image:
    """Add two lines under a picture; their height is that of all pictures of this width."""
    size = max(10, min(16, picture.width // 36))
    font, line = ImageFont.load_default(size=size), round(1.5 * size)
    sheet = Image.new("RGB", (picture.width, picture.height + 2 * line), PAPER)
    sheet.paste(picture, (0, 0))
    pen, top = ImageDraw.Draw(sheet), picture.height
    room = picture.width - 8
    pen.text((4, top + line / 2), _fitting(caption, font, room), fill=INK, font=font, anchor="lm")
    middle, reach = top + 1.5 * line, size / 3
    pen.ellipse([5, middle - reach, 5 + 2 * reach, middle + reach], fill=GREY, outline=INK)
    followed = f"{count - lost} of {count} followed"
    pen.text((size + 3, middle), followed, fill=INK, font=font, anchor="lm")
    left = size + 3 + font.getlength(f"{count} of {count} followed") + size
    if left + size + font.getlength(LOST_MEANS) <= room:
        for side in (-1, 1):
            pen.line([left, middle - side * reach, left + 2 * reach, middle + side * reach], fill=GREY, width=2)
        pen.text((left + size, middle), LOST_MEANS, fill=INK, font=font, anchor="lm")
    return sheet


def _fitting(parts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Join as many parts as fit."""
    text = ""
    for part in parts:
        longer = f"{text} · {part}" if text else part
        if font.getlength(longer) > room:
            break
        text = longer
    return text
