"""The views of DINO and Midway: crops of two frames, and how their colours change."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from midway_hub.training.data.needs import (
    AspectRange,
    ColourRecipe,
    Crops,
    Frames,
    Needs,
    Palette,
    Probability,
    RadiusRange,
    ShareRange,
    Strength,
    Views,
    ViewSize,
)


class DinoViews(Views):
    """Views of one frame or two that are compared. Defaults are the paper's (appendix B; areas are shares)."""

    frames: Annotated[int, Field(ge=1, le=2)] = 2
    """Frames that views are taken of: 2 as in Midway's comparison, 1 as in DINO itself."""

    global_size: ViewSize = 224
    """Side of a global view in pixels; there are two in every frame."""

    local_size: ViewSize = 96
    """Side of a local view in pixels."""

    local_count: Annotated[int, Field(ge=1, le=64)] = 8
    """Local views of every frame."""

    initial_area: ShareRange | None = (0.05, 0.2)
    """Area of the crop that globals and locals are cut from, as a share of the frame; null cuts them from the frame."""

    global_area: ShareRange = (0.4, 1.0)
    """Area of a global view as a share of the initial crop."""

    local_area: ShareRange = (0.05, 0.4)
    """Area of a local view as a share of the initial crop."""

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
    """Recipe of the first global view of every frame, and of a dynamics view of the earlier frame."""

    global_2: ColourRecipe = ColourRecipe(blur=0.1, solarise=0.2)
    """Recipe of the second global view of every frame, and of a dynamics view of the later frame."""

    local: ColourRecipe = ColourRecipe(blur=0.5, solarise=0.0)
    """Recipe of local views."""

    @model_validator(mode="before")
    @classmethod
    def _without_dense(cls, values: Any) -> Any:
        """Leave out what only methods with dynamics read: recipes and runs of before named it for DINO, too."""
        if isinstance(values, dict):
            return {k: v for k, v in values.items() if not k.startswith("dense_") or k in cls.model_fields}
        return values

    def palette(self) -> Palette:
        """Return how colours change."""
        return Palette(self.jitter, self.jitter_probability, self.grayscale_probability, self.blur_radius)

    def needs(self) -> Needs:
        """Return the groups `globals` and `locals`."""
        palette, within = self.palette(), None
        crops: dict[str, Crops] = {}
        if self.initial_area is not None:
            within = "initial"
            side = (self.global_size, self.global_size)
            crops["initial"] = Crops(side, area=self.initial_area, aspect=self.aspect, same_box=True, pixels=False)
        crops["globals"] = Crops(
            (self.global_size, self.global_size),
            2,
            area=self.global_area,
            aspect=self.aspect,
            within=within,
            same_box=True,
            flip=self.flip_probability,
            colour=(self.global_1, self.global_2),
            palette=palette,
        )
        crops["locals"] = Crops(
            (self.local_size, self.local_size),
            self.local_count,
            area=self.local_area,
            aspect=self.aspect,
            within=within,
            flip=self.flip_probability,
            colour=(self.local,),
            palette=palette,
        )
        return Needs(Frames("pair", 2) if self.frames == 2 else Frames("single", 1), crops)


class ViewSettings(DinoViews):
    """The views of Midway: those that are compared, and one crop that both frames share for the dynamics."""

    frames: Annotated[int, Field(ge=2, le=2)] = 2
    """Frames of a sample: the dynamics are between two."""

    dense_size: ViewSize = 224
    """Side of the view for the dynamics loss in pixels; there is one in either frame."""

    dense_area: ShareRange = (0.2, 0.4)
    """Area of the dynamics view as a share of the frame."""

    dense_colour: bool = True
    """Whether the dynamics views change their colours."""

    def needs(self) -> Needs:
        """Return the groups `globals`, `locals` and `dense`."""
        needs = super().needs()
        dense = Crops(
            (self.dense_size, self.dense_size),
            area=self.dense_area,
            aspect=self.aspect,
            same_box=True,
            colour=(self.global_1, self.global_2) if self.dense_colour else (),
            colour_by_frame=True,
            palette=self.palette(),
        )
        return Needs(needs.frames, {**needs.crops, "dense": dense})
