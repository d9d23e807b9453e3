"""All that is random about the views of a frame pair, drawn once as plain numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields

import numpy as np

from midway_hub.training.data.views.boxes import Box, random_box
from midway_hub.training.data.views.settings import ColourRecipe, ViewSettings, check_groups

JITTER_OPERATIONS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True, eq=False)
class ColourDraw:
    """How the colours of V views change, in the order of the attributes.

    Attributes:
        jitter: (V,) bool, whether the four jitter operations are applied.
        factors: (V, 4) float64 factors of brightness, contrast and saturation (1 changes nothing), and turns of hue.
        order: (V, 4) int64 which of the four comes first, second, ...
        grayscale: (V,) bool.
        blur: (V,) float64 standard deviation in pixels, 0 for none.
        solarise: (V,) bool.
    """

    jitter: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    grayscale: np.ndarray
    blur: np.ndarray
    solarise: np.ndarray

    def __len__(self) -> int:
        return len(self.jitter)

    def __getitem__(self, index: slice | np.ndarray) -> ColourDraw:
        return ColourDraw(*(getattr(self, item.name)[index] for item in fields(self)))

    @classmethod
    def concatenate(cls, draws: Sequence[ColourDraw]) -> ColourDraw:
        """Join the draws of several sets of views into one."""
        return cls(*(np.concatenate([getattr(draw, item.name) for draw in draws]) for item in fields(cls)))


@dataclass(frozen=True, eq=False)
class CropDraw:
    """One group of views: V/2 crops of the earlier frame, then as many of the later one.

    Attributes:
        view_size: Side of the square views in pixels.
        boxes: (V, 4) int64 top, left, height and width in pixels of the frame.
        flips: (V,) bool, whether the view is mirrored.
        colour: What follows.
    """

    view_size: int
    boxes: np.ndarray
    flips: np.ndarray
    colour: ColourDraw

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, eq=False)
class ViewDraw:
    """The views of one frame pair.

    Attributes:
        size: Height and width of the frames.
        initial: The box, in both frames, that globals and locals are cut from; None where that is the frame.
        groups: By name of the group, the views that were asked for.
    """

    size: tuple[int, int]
    initial: Box | None
    groups: dict[str, CropDraw]


def draw_views(
    settings: ViewSettings, groups: Collection[str], size: tuple[int, int], generator: np.random.Generator
) -> ViewDraw:
    """Draw boxes, flips and colours of one frame pair's views.

    Every group has randomness of its own: what is drawn for one does not depend on which others are asked for.

    Args:
        settings: Sizes, ranges and probabilities.
        groups: What to draw, of `globals`, `locals` and `dense`.
        size: Height and width of the frames.
        generator: The pair's own generator; it moves on by the same amount whatever is drawn.

    Returns:
        A picklable `ViewDraw` of plain numbers and arrays.

    Raises:
        ValueError: An unknown group, or frames of less than 2 pixels in a direction.
    """
    check_groups(groups)
    height, width = size
    if min(height, width) < 2:
        raise ValueError(f"frames are {height}×{width} pixels, views need at least 2×2; leave this file out")
    keys = generator.integers(2**63, size=4)
    streams = dict(zip(("initial", "globals", "locals", "dense"), map(np.random.default_rng, keys), strict=True))
    frame = (0, 0, height, width)
    initial = None
    if settings.initial_area is not None:
        initial = random_box(frame, settings.initial_area, settings.aspect, streams["initial"])
    within = initial or frame
    drawn = {}
    if "globals" in groups:
        drawn["globals"] = _globals(settings, within, streams["globals"])
    if "locals" in groups:
        drawn["locals"] = _locals(settings, within, streams["locals"])
    if "dense" in groups:
        drawn["dense"] = _dense(settings, frame, streams["dense"])
    return ViewDraw((height, width), initial, drawn)


def _globals(settings: ViewSettings, within: Box, generator: np.random.Generator) -> CropDraw:
    boxes = [random_box(within, settings.global_area, settings.aspect, generator) for _ in range(2)]
    flips = generator.random(2) < settings.flip_probability
    colour = _colour(settings, [settings.global_1, settings.global_2] * 2, generator)
    return CropDraw(settings.global_size, np.array(boxes * 2), np.tile(flips, 2), colour)


def _locals(settings: ViewSettings, within: Box, generator: np.random.Generator) -> CropDraw:
    count = 2 * settings.local_count
    boxes = [random_box(within, settings.local_area, settings.aspect, generator) for _ in range(count)]
    flips = generator.random(count) < settings.flip_probability
    colour = _colour(settings, [settings.local] * count, generator)
    return CropDraw(settings.local_size, np.array(boxes), flips, colour)


def _dense(settings: ViewSettings, frame: Box, generator: np.random.Generator) -> CropDraw:
    box = random_box(frame, settings.dense_area, settings.aspect, generator)
    if settings.dense_colour:
        colour = _colour(settings, [settings.global_1, settings.global_2], generator)
    else:
        colour = _unchanged(2)
    return CropDraw(settings.dense_size, np.array([box] * 2), np.zeros(2, dtype=bool), colour)


def _colour(settings: ViewSettings, recipes: Sequence[ColourRecipe], generator: np.random.Generator) -> ColourDraw:
    """Draw colour changes, one view per recipe."""
    count = len(recipes)
    brightness, contrast, saturation, hue = settings.jitter
    low = (1 - brightness, 1 - contrast, 1 - saturation, -hue)
    high = (1 + brightness, 1 + contrast, 1 + saturation, hue)
    jitter = generator.random(count) < settings.jitter_probability
    factors = generator.uniform(low, high, size=(count, 4))
    order = generator.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    grayscale = generator.random(count) < settings.grayscale_probability
    blurred = generator.random(count) < [recipe.blur for recipe in recipes]
    least, most = settings.blur_radius
    radius = generator.uniform(least, most, size=count)
    solarise = generator.random(count) < [recipe.solarise for recipe in recipes]
    return ColourDraw(jitter, factors, order, grayscale, np.where(blurred, radius, 0.0), solarise)


def _unchanged(count: int) -> ColourDraw:
    no = np.zeros(count, dtype=bool)
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (count, 1))
    return ColourDraw(no, factors, np.tile(np.arange(4), (count, 1)), no, np.zeros(count), no)
