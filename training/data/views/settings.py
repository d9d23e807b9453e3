"""Which crops are cut from a frame pair, and how their colours change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, Field

from midway_hub.training.settings import Settings

GROUPS = ("globals", "locals", "dense")
"""The groups of views that a method may ask for."""


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"the lower end {interval[0]} is above the upper end {interval[1]}; swap them")
    return interval


Probability = Annotated[float, Field(ge=0, le=1)]
ViewSize = Annotated[int, Field(ge=16, le=1024)]
Share = Annotated[float, Field(gt=0, le=1)]
ShareRange = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
Positive = Annotated[float, Field(gt=0)]
AspectRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
Strength = Annotated[float, Field(ge=0, le=1)]
Radius = Annotated[float, Field(gt=0, le=5)]
RadiusRange = Annotated[tuple[Radius, Radius], AfterValidator(_ordered)]


class ColourRecipe(Settings):
    """What the kinds of views differ in; jitter and grayscale are the same for all."""

    blur: Probability
    """Share of the views that are blurred."""

    solarise: Probability
    """Share of the views whose bright half is inverted."""


class ViewSettings(Settings):
    """The views of one frame pair. Defaults are the paper's (spec sections 4 and 5; areas are shares, boxes random)."""

    global_size: ViewSize = 224
    """Side of a global view in pixels; there are two in either frame."""

    local_size: ViewSize = 96
    """Side of a local view in pixels."""

    local_count: Annotated[int, Field(ge=1, le=64)] = 8
    """Local views of either frame."""

    dense_size: ViewSize = 224
    """Side of the view for the dynamics loss in pixels; there is one in either frame."""

    initial_area: ShareRange | None = (0.05, 0.2)
    """Area of the crop that globals and locals are cut from, as a share of the frame; null cuts them from the frame."""

    global_area: ShareRange = (0.4, 1.0)
    """Area of a global view as a share of the initial crop."""

    local_area: ShareRange = (0.05, 0.4)
    """Area of a local view as a share of the initial crop."""

    dense_area: ShareRange = (0.2, 0.4)
    """Area of the dynamics view as a share of the frame."""

    aspect: AspectRange = (3 / 4, 4 / 3)
    """Width over height of every box."""

    jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = (0.4, 0.4, 0.2, 0.1)
    """How far brightness, contrast, saturation and hue may change (hue in turns)."""

    jitter_probability: Probability = 0.8
    """Share of the views whose colours are jittered."""

    grayscale_probability: Probability = 0.2
    """Share of the views that lose their colours."""

    blur_radius: RadiusRange = (0.1, 2.0)
    """Standard deviation of the Gaussian blur in pixels of the view."""

    flip_probability: Probability = 0.5
    """Share of the global boxes and of the local views that are mirrored."""

    global_1: ColourRecipe = ColourRecipe(blur=1.0, solarise=0.0)
    """Recipe of the first global view of either frame, and of the dynamics view of the earlier frame."""

    global_2: ColourRecipe = ColourRecipe(blur=0.1, solarise=0.2)
    """Recipe of the second global view of either frame, and of the dynamics view of the later frame."""

    local: ColourRecipe = ColourRecipe(blur=0.5, solarise=0.0)
    """Recipe of local views."""

    dense_colour: bool = True
    """Whether the dynamics views change their colours."""

    def describe(self, groups: Collection[str] = GROUPS) -> list[str]:
        """Return one line per group of views that says what it is.

        Args:
            groups: The groups asked for, of `GROUPS`.
        """
        check_groups(groups)
        of = "of the frame"
        if self.initial_area is not None:
            of = f"of an initial crop of {_range(self.initial_area)} of the frame"
        lines = {
            "globals": f"2 boxes shared by both frames, {self.global_size} px, area {_range(self.global_area)} {of}",
            "locals": f"{self.local_count} boxes of their own in either frame, {self.local_size} px, "
            f"area {_range(self.local_area)} {of}",
            "dense": f"1 box shared by both frames, {self.dense_size} px, area {_range(self.dense_area)} of the frame, "
            f"not mirrored, colours {'changed' if self.dense_colour else 'kept'}",
        }
        return [f"{group}: {lines[group]}" for group in GROUPS if group in groups]


def check_groups(groups: Collection[str]) -> None:
    """Raise a ValueError that names every group that there is not."""
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"unknown group of views {', '.join(unknown)}; there are {', '.join(GROUPS)}")


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g}–{interval[1]:g}"
