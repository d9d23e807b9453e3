"""Pictures of optical flow: colours and their wheel, arrows, errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from midway_hub.drawing import INK, PAPER, heat_colours, scale_bar
from midway_hub.flow_io.field import FlowField

UNKNOWN_GREY = 128
ARROW = (255, 255, 255)
SMOOTH = 3
"""Arrows are drawn this much larger and then reduced, which smooths their edges."""

Point = tuple[float, float]
Arrow = tuple[Point, Point]


def flow_picture(flow: np.ndarray, *, valid: np.ndarray | None = None, largest: float | None = None) -> Image.Image:
    """Colour flow by direction and length (Baker et al. 2011), as torchvision does, under a fixed maximum.

    Args:
        flow: (H, W, 2) in pixels.
        valid: (H, W), where the flow is known; what is not, and what is not finite, is grey.
        largest: Length in pixels of the full colours, which longer flow gets too; default: the longest there is.

    Returns:
        A picture of W×H pixels.

    Raises:
        ValueError: Arrays that do not fit, or `largest` is not positive.
    """
    from torchvision.utils import flow_to_image

    field = FlowField.of(flow, valid)
    largest = longest_flow(field) if largest is None else _positive("largest", largest)
    # In parts of the maximum, since torchvision squares in float32; and just below it, since rounding beyond it would
    # wrap around to the wrong colour.
    within = field.flow / np.maximum(lengths(field), largest)[..., None] * (1 - 1e-6)
    # torchvision scales by the longest vector: one more row holds what that shall be.
    reference = np.full((1, *within.shape[1:]), (1, 0))
    padded = torch.from_numpy(np.concatenate([within, reference]).astype(np.float32)).movedim(-1, 0)
    colours = flow_to_image(padded).movedim(0, -1).numpy()[:-1]
    return Image.fromarray(np.where(field.valid[..., None], colours, np.uint8(UNKNOWN_GREY)))


def flow_wheel(largest: float, *, size: int = 160) -> Image.Image:
    """Draw the legend of `flow_picture`: a disc whose colours are those of flow from its centre to there.

    Args:
        largest: Length in pixels of the flow at the rim; a second circle is at half of it.
        size: Side of the legend in pixels, at least 48.

    Returns:
        A picture of size×size pixels.

    Raises:
        ValueError: A number out of range.
    """
    largest = _positive("largest", largest)
    if size < 48:
        raise ValueError(f"size of the wheel must be at least 48 pixels, got {size}")
    font_size = max(10, size // 11)
    centre, radius = (size - 1) / 2, (size - 1) / 2 - font_size - 4
    steps = (np.arange(size) - centre) / radius
    flow = np.stack(np.meshgrid(steps, steps), axis=-1)
    wheel = np.asarray(flow_picture(flow, largest=1)).copy()
    wheel[np.linalg.norm(flow, axis=2) > 1] = PAPER
    picture = Image.fromarray(wheel)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=font_size)
    for share in (0.5, 1.0):
        reach = radius * share
        draw.ellipse([centre - reach, centre - reach, centre + reach, centre + reach], outline=INK)
    draw.text((centre, centre - radius / 2 - 3), f"{largest / 2:.3g}", fill=INK, font=font, anchor="mb")
    draw.text((centre, size - 2), f"rim: {largest:.3g} px", fill=INK, font=font, anchor="mb")
    return picture


def draw_arrows(
    image: Image.Image,
    flow: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    step: int | None = None,
    largest: float | None = None,
    colour: tuple[int, int, int] = ARROW,
) -> Image.Image:
    """Draw flow as arrows on a grid.

    Args:
        image: The picture underneath, of W×H pixels.
        flow: (H, W, 2) in pixels.
        valid: (H, W), where the flow is known; nothing is drawn where it is not.
        step: Pixels between arrows; default: a 24th of the longer side, at least 8.
        largest: Length in pixels of the flow whose arrow spans `step`; default: arrows end where the pixels go.
        colour: Red, green and blue of the arrows, which have a dark edge.

    Returns:
        A picture of the image's size.

    Raises:
        ValueError: The flow is not that of a picture of this size, or a number is out of range.
    """
    field = FlowField.of(flow, valid)
    height, width = field.valid.shape
    if image.size != (width, height):
        raise ValueError(f"the flow is that of {width}×{height} pixels (width×height), the image has {image.size}")
    step = max(8, max(image.size) // 24) if step is None else int(_positive("step", step))
    magnify = 1.0 if largest is None else step / _positive("largest", largest)
    line = max(1.0, step / 16)
    drawn = image.convert("RGB")
    # No arrow is longer than the picture is wide and high together: Pillow cannot draw to far away.
    shown = field.flow * np.minimum(magnify, (width + height) / np.maximum(lengths(field), 1e-12))[..., None]
    arrows = [
        ((x, y), (x + float(shown[y, x, 0]), y + float(shown[y, x, 1])))
        for y in range(step // 2, height, step)
        for x in range(step // 2, width, step)
        if field.valid[y, x]
    ]
    for ink, thickness in ((INK, line + 2), (colour, line)):
        drawn.paste(ink, mask=_arrows_mask(drawn.size, arrows, thickness, head=3 + 2 * line))
    return drawn


def error_picture(error: np.ndarray, *, valid: np.ndarray | None = None, largest: float) -> Image.Image:
    """Colour the error of flow from dark (0) to bright (`largest` and more).

    Args:
        error: (H, W) in pixels.
        valid: (H, W), where the truth is known; what is not, and what is not finite, is grey.
        largest: Error in pixels of the brightest colour.

    Returns:
        A picture of W×H pixels.

    Raises:
        ValueError: Arrays that do not fit, or `largest` is not positive.
    """
    error = np.asarray(error)
    if error.ndim != 2:
        raise ValueError(f"error must have shape (height, width), got {error.shape}")
    field = FlowField.of(np.stack([error, np.zeros_like(error)], axis=-1), valid)
    colours = heat_colours(field.flow[..., 0], top=_positive("largest", largest))
    return Image.fromarray(np.where(field.valid[..., None], colours, np.uint8(UNKNOWN_GREY)))


def error_legend(largest: float) -> Image.Image:
    """Draw the scale of `error_picture`, from 0 to `largest` pixels."""
    return scale_bar(f"{_positive('largest', largest):.3g} px and more")


def longest_flow(field: FlowField) -> float:
    """Return the length of the longest known vector in pixels, or 1 where nothing moves."""
    return float(lengths(field).max()) or 1.0


def lengths(field: FlowField) -> np.ndarray:
    """Return the length of every vector in pixels, (H, W) float64; 0 where it is not known."""
    return np.linalg.norm(field.flow.astype(np.float64), axis=2)


def _arrows_mask(size: tuple[int, int], arrows: Sequence[Arrow], thickness: float, *, head: float) -> Image.Image:
    """Draw arrows with smooth edges, dots where they would be shorter than two pixels."""
    mask = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH))
    draw, width = ImageDraw.Draw(mask), round(thickness * SMOOTH)
    for start, end in arrows:
        length = math.dist(start, end)
        if length < 2:
            _stroke(draw, start, start, width)
            continue
        _stroke(draw, start, end, width)
        angle, reach = math.atan2(end[1] - start[1], end[0] - start[0]), min(0.6 * length, head)
        for turn in (-2.6, 2.6):
            tip = (end[0] + reach * math.cos(angle + turn), end[1] + reach * math.sin(angle + turn))
            _stroke(draw, end, tip, width)
    return mask.reduce(SMOOTH)


def _stroke(draw: ImageDraw.ImageDraw, start: Point, end: Point, width: int) -> None:
    """Draw a line with round ends."""
    ends = [((x + 0.5) * SMOOTH, (y + 0.5) * SMOOTH) for x, y in (start, end)]
    draw.line(ends, fill=255, width=width)
    for x, y in ends:
        draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")
    return value
