"""All that is random about the views of a clip, drawn once as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from midway_hub.training.data.needs import ColourRecipe, Crops, Frames, Needs, Palette
from midway_hub.training.data.views.boxes import Box, random_box

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
    """One group of views: all crops of the first of its frames, then of the next one, ...

    Attributes:
        size: Height and width of the views in pixels.
        frames: (V,) int64, which frame of the clip each view is of.
        boxes: (V, 4) int64 top, left, height and width in pixels of the frame.
        flips: (V,) bool, whether the view is mirrored.
        colour: What follows.
        affine: (V, 2, 3) float32, for the method to apply: `Crops.rotate`; None where there is none.
        geometry: Whether `to_frame` is handed on.
    """

    size: tuple[int, int]
    frames: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    colour: ColourDraw
    affine: np.ndarray | None = None
    geometry: bool = False

    def __len__(self) -> int:
        return len(self.boxes)

    def to_frame(self) -> np.ndarray:
        """Return (V, 2, 3) float32 maps from pixels of the views to pixels of their frames."""
        (height, width), (top, left, h, w) = self.size, self.boxes.T.astype(float)
        maps = np.zeros((len(self), 2, 3), np.float32)
        maps[:, 0, 0], maps[:, 1, 1] = np.where(self.flips, -w, w) / width, h / height
        maps[:, 0, 2], maps[:, 1, 2] = np.where(self.flips, left + w, left), top
        return maps


@dataclass(frozen=True, eq=False)
class ViewDraw:
    """The views of one clip.

    Attributes:
        size: Height and width of the frames.
        outer: By name, boxes that are not shown and that views are cut from.
        groups: By name, the groups of views.
    """

    size: tuple[int, int]
    outer: dict[str, Box]
    groups: dict[str, CropDraw]


STREAMS = ("initial", "globals", "locals", "dense")
"""Groups whose randomness comes first, so that they stay as they were drawn since the first release."""


def draw_views(needs: Needs, size: tuple[int, int], generator: np.random.Generator) -> ViewDraw:
    """Draw boxes, flips and colours of one clip's views.

    Every group has randomness of its own: what is drawn for one does not depend on which others are asked for.

    Args:
        needs: The groups.
        size: Height and width of the frames.
        generator: The clip's own generator; it moves on by the same amount whatever is drawn.

    Returns:
        A picklable `ViewDraw` of plain numbers and arrays.

    Raises:
        ValueError: Frames of less than 2 pixels in a direction.
    """
    height, width = size
    if min(height, width) < 2:
        raise ValueError(f"frames are {height}×{width} pixels, views need at least 2×2; leave this file out")
    keys = generator.integers(2**63, size=len(STREAMS))
    known = dict(zip(STREAMS, keys.tolist(), strict=True))
    firsts: dict[str, Box] = {}
    outer, groups = {}, {}
    for name, crops in needs.crops.items():
        stream = np.random.default_rng(known.get(name, [int(keys[0]), *name.encode()]))
        drawn = _draw_group(crops, needs.frames, firsts.get(crops.within or "", (0, 0, height, width)), stream)
        top, left, h, w = drawn.boxes[0].tolist()
        firsts[name] = (top, left, h, w)
        if crops.pixels:
            groups[name] = drawn
        else:
            outer[name] = firsts[name]
    return ViewDraw((height, width), outer, groups)


def _draw_group(crops: Crops, frames: Frames, within: Box, generator: np.random.Generator) -> CropDraw:
    which = crops.of(frames)
    repeats = len(which) if crops.same_box else 1
    drawn = crops.count * len(which) // repeats
    boxes = [random_box(within, crops.area, crops.aspect, generator) for _ in range(drawn)]
    flips = np.zeros(drawn, bool) if crops.flip is None else generator.random(drawn) < crops.flip
    recipes = [
        crops.colour[(place if crops.colour_by_frame else view) % len(crops.colour)]
        for place in range(len(which))
        for view in range(crops.count)
        if crops.colour
    ]
    count = crops.count * len(which)
    return CropDraw(
        size=crops.size,
        frames=np.repeat(which, crops.count),
        boxes=np.array(boxes * repeats),
        flips=np.tile(flips, repeats),
        colour=_colour(crops.palette, recipes, generator) if recipes else _unchanged(count),
        affine=_affine(crops, count, generator) if crops.has_affine else None,
        geometry=crops.geometry,
    )


def _affine(crops: Crops, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw affines (count, 2, 3) around the middle, in `torch.nn.functional.affine_grid`'s coordinates."""
    angle = np.deg2rad(generator.uniform(-crops.rotate, crops.rotate, count))
    factor = generator.uniform(*crops.scale, count)
    mirrored = np.where(generator.random(count) < crops.affine_flip, -1.0, 1.0)
    height, width = crops.size
    cos, sin = np.cos(angle) / factor, np.sin(angle) / factor
    maps = np.zeros((count, 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = cos * mirrored, -sin * height / width
    maps[:, 1, 0], maps[:, 1, 1] = sin * width / height * mirrored, cos
    return maps.astype(np.float32)


def _colour(palette: Palette, recipes: Sequence[ColourRecipe], generator: np.random.Generator) -> ColourDraw:
    """Draw colour changes, one view per recipe."""
    count = len(recipes)
    brightness, contrast, saturation, hue = palette.jitter
    low = (1 - brightness, 1 - contrast, 1 - saturation, -hue)
    high = (1 + brightness, 1 + contrast, 1 + saturation, hue)
    jitter = generator.random(count) < palette.jitter_probability
    factors = generator.uniform(low, high, size=(count, 4))
    order = generator.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    grayscale = generator.random(count) < palette.grayscale_probability
    blurred = generator.random(count) < [recipe.blur for recipe in recipes]
    least, most = palette.blur_radius
    radius = generator.uniform(least, most, size=count)
    solarise = generator.random(count) < [recipe.solarise for recipe in recipes]
    return ColourDraw(jitter, factors, order, grayscale, np.where(blurred, radius, 0.0), solarise)


def _unchanged(count: int) -> ColourDraw:
    no = np.zeros(count, dtype=bool)
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (count, 1))
    return ColourDraw(no, factors, np.tile(np.arange(4), (count, 1)), no, np.zeros(count), no)
