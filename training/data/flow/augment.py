"""Augmentation of flow samples (CroCo v2's): resize, flip, crop, then change colours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field, field_validator

from midway_hub.training.data.flow.jitter import change_colours, draw_jitter
from midway_hub.training.data.flow.resample import Axis, Size, interpolate, interpolate_flow, scatter_flow
from midway_hub.training.data.flow.sample import FlowSample
from midway_hub.training.data.synthetic.checks import Range, check_range
from midway_hub.training.settings import Settings


class FlowAugment(Settings):
    """Ranges that each sample's augmentation is drawn from; the defaults are CroCo v2's."""

    spatial_probability: float = Field(default=0.8, ge=0, le=1)
    """Probability of resizing; frames smaller than the crop are always enlarged until it fits."""

    scale: Range = (-0.2, 0.5)
    """Range of the resizing factor, as powers of 2."""

    stretch_probability: float = Field(default=0.8, ge=0, le=1)
    """Probability that width and height are resized by different factors."""

    stretch: float = Field(default=0.2, ge=0, le=2)
    """Largest factor that each of them is resized by on top, as a power of 2."""

    margin: int = Field(default=8, ge=0)
    """Pixels that resized frames are larger than the crop at least."""

    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of swapping left and right."""

    vertical_flip: float = Field(default=0.1, ge=0, le=1)
    """Probability of swapping top and bottom."""

    brightness: float = Field(default=0.4, ge=0)
    """Largest relative change of brightness."""

    contrast: float = Field(default=0.4, ge=0)
    """Largest relative change of contrast."""

    saturation: float = Field(default=0.4, ge=0)
    """Largest relative change of saturation."""

    hue: float = Field(default=0.5 / 3.14, ge=0, le=0.5)
    """Largest turn of the hue, in full turns."""

    asymmetric_probability: float = Field(default=0.2, ge=0, le=1)
    """Probability that the colours of the two frames change apart."""

    last_crop_position: bool = True
    """Whether the crop can lie at the right and lower edge; CroCo v2's cannot."""

    @field_validator("scale")
    @classmethod
    def _range(cls, value: Range) -> Range:
        check_range("scale", value, -4, 4)
        return value


@dataclass(frozen=True)
class FlowGeometry:
    """What happens to the pixels of a sample.

    Attributes:
        size: Height and width that it is resized to.
        flip: Whether top and bottom, and left and right, are swapped then.
        corner: Row and column where the crop begins then.
    """

    size: Size
    flip: tuple[bool, bool]
    corner: tuple[int, int]


def draw_geometry(settings: FlowAugment, size: Size, crop: Size, generator: np.random.Generator) -> FlowGeometry:
    """Draw the geometry of a sample; as many numbers are drawn whatever they say."""
    resized, stretched = generator.random(2) < (settings.spatial_probability, settings.stretch_probability)
    scale = generator.uniform(*settings.scale)
    stretch = generator.uniform(-settings.stretch, settings.stretch, size=2)
    flip = generator.random(2) < (settings.vertical_flip, settings.horizontal_flip)
    place = generator.random(2)

    if resized:
        least = max((crop[axis] + settings.margin) / size[axis] for axis in (0, 1))
        factors = np.maximum(2 ** (scale + stretched * stretch), least)
    else:
        factors = np.full(2, max(1.0, *(crop[axis] / size[axis] for axis in (0, 1))))
    new = [max(crop[axis], round(size[axis] * float(factors[axis]))) for axis in (0, 1)]
    spare = [new[axis] - crop[axis] + settings.last_crop_position for axis in (0, 1)]
    return FlowGeometry(
        size=(new[0], new[1]),
        flip=(bool(flip[0]), bool(flip[1])),
        corner=(math.floor(place[0] * spare[0]), math.floor(place[1] * spare[1])),
    )


def augment_flow(sample: FlowSample, settings: FlowAugment, crop: Size, generator: np.random.Generator) -> FlowSample:
    """Resize, flip, crop and recolour a sample.

    Args:
        sample: The sample. Flow on a finer grid than the frames (Spring) is first taken at every pixel's first cell.
        settings: What to draw from.
        crop: Height and width of the result in pixels.
        generator: The only randomness; in the same state it gives the same sample.

    Returns:
        A sample of the crop's size, without occlusions.

    Raises:
        ValueError: A crop without pixels.
    """
    if min(crop) < 1:
        raise ValueError(f"a crop has at least 1 x 1 pixels, got {crop[0]} x {crop[1]}")
    geometry = draw_geometry(settings, sample.first.shape[:2], crop, generator)
    asymmetric = generator.random() < settings.asymmetric_probability
    strengths = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    jitters = tuple(draw_jitter(strengths, generator) for _ in range(2))

    moved = change_geometry(sample, geometry, crop)
    first, second = change_colours(moved.first, moved.second, jitters if asymmetric else jitters[:1])
    return replace(moved, first=first, second=second)


def change_geometry(sample: FlowSample, geometry: FlowGeometry, crop: Size) -> FlowSample:
    """Resize, flip and crop a sample; its occlusions are dropped."""
    rows, columns = (
        Axis(sample.first.shape[axis], geometry.size[axis], geometry.flip[axis], geometry.corner[axis], crop[axis])
        for axis in (0, 1)
    )
    step = sample.flow_scale
    flow, valid = sample.flow[::step, ::step], sample.valid[::step, ::step]
    layers = [sample.first, sample.second] if sample.sparse else [sample.first, sample.second, flow, valid[..., None]]
    made = interpolate(layers, rows, columns)
    if sample.sparse:
        flow, valid = scatter_flow(flow, valid, rows, columns)
    else:
        flow, valid = interpolate_flow(made[..., 6:], rows, columns)
    frames = np.rint(made[..., :6]).astype(np.uint8)
    first, second = np.ascontiguousarray(frames[..., :3]), np.ascontiguousarray(frames[..., 3:])
    return replace(sample, first=first, second=second, flow=flow, valid=valid, occluded=None, flow_scale=1)
