"""What a method asks of the data, as data: frames, groups of views, flow. The loader knows no method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from midway_hub.training.settings import Settings


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
    """What the kinds of views differ in; jitter and grayscale are the same for all of a group."""

    blur: Probability
    """Share of the views that are blurred."""

    solarise: Probability
    """Share of the views whose bright half is inverted."""


@dataclass(frozen=True)
class Palette:
    """How colours change in the views of a group.

    Attributes:
        jitter: How far brightness, contrast, saturation and hue may change (hue in turns).
        jitter_probability: Share of the views whose colours are jittered.
        grayscale_probability: Share of the views that lose their colours.
        blur_radius: Standard deviation of the Gaussian blur in pixels of the view.
    """

    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_radius: tuple[float, float] = (0.1, 2.0)


@dataclass(frozen=True)
class Frames:
    """Which frames of a video make up a clip.

    Attributes:
        kind: `single`, `pair` and `window` (neighbours `data.gap` apart, the same for all of a window), or `sandwich`:
            past, current and future at shares of the video's length.
        count: Frames T of a clip.
        around: Least and most distance of a sandwich's past and future from its current frame, as shares.
        centre: Where a sandwich's current frame may be, as shares.
    """

    kind: Literal["single", "pair", "window", "sandwich"]
    count: int
    around: tuple[float, float] = (0.15, 0.25)
    centre: tuple[float, float] = (0.3, 0.7)

    def __post_init__(self) -> None:
        fixed = {"single": 1, "pair": 2, "sandwich": 3}.get(self.kind)
        if (fixed is not None and self.count != fixed) or self.count < 1:
            raise ValueError(f"a {self.kind} has {fixed or 'at least one'} frame(s), got count={self.count}")

    def __str__(self) -> str:
        return {"single": "1 frame", "pair": "2 frames"}.get(self.kind, f"{self.count} frames ({self.kind})")


PAIR = Frames("pair", 2)


@dataclass(frozen=True)
class Crops:
    """One named group of views. In a batch they are (B, V, 3, h, w): all of the first frame, then of the next one, ...

    Attributes:
        size: Height and width of the views.
        count: Views of every frame.
        frames: Which frames of the clip; None: all.
        area: Area of a box as shares of what it is cut from.
        aspect: Width over height of a box.
        within: The group whose first box the boxes are cut from; None: the frame.
        same_box: Whether the frames share boxes and mirroring.
        flip: Share of the boxes that are mirrored; None: none, and nothing is drawn.
        rotate: Degrees, both ways, that an affine of the batch (`GROUP/affine`) turns by; the method applies it.
        scale: Factors that the affine enlarges by.
        affine_flip: Share of the affines that mirror.
        colour: Recipes, in turn over the views of a frame; none: colours stay as they are.
        colour_by_frame: The recipes go by frame instead.
        palette: How colours change.
        pixels: Whether the views are made: a group may be drawn only for others to be cut from.
        geometry: Whether `GROUP/to_frame` (B, V, 2, 3) is handed on, from pixels of a view to pixels of its frame; the
            first pixel's middle is at 0.5.
    """

    size: tuple[int, int]
    count: int = 1
    frames: tuple[int, ...] | None = None
    area: tuple[float, float] = (0.4, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    within: str | None = None
    same_box: bool = False
    flip: float | None = None
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    affine_flip: float = 0.0
    colour: tuple[ColourRecipe, ...] = ()
    colour_by_frame: bool = False
    palette: Palette = Palette()
    pixels: bool = True
    geometry: bool = False

    @property
    def has_affine(self) -> bool:
        """Whether the group asks for affines."""
        return bool(self.rotate) or self.scale != (1.0, 1.0) or bool(self.affine_flip)

    def of(self, frames: Frames) -> tuple[int, ...]:
        """Return the frames of the clip that the group is cut from."""
        return tuple(range(frames.count)) if self.frames is None else self.frames

    def describe(self, frames: Frames) -> str:
        """Return a line that says what the group is."""
        which = self.of(frames)
        where = f"within {self.within}" if self.within else "of the frame"
        boxes = f"{self.count} box{'es' if self.count > 1 else ''}"
        owner = "of one frame" if len(which) == 1 else "shared by all frames" if self.same_box else "of every frame"
        size = f"{self.size[0]} px" if self.size[0] == self.size[1] else f"{self.size[0]}x{self.size[1]} px"
        words = [f"{boxes} {owner}", size, f"area {_range(self.area)} {where}"]
        words += [f"mirrored in {self.flip:.0%}"] if self.flip else []
        words += [f"turned by up to {self.rotate:g} degrees, scaled by {_range(self.scale)}"] if self.has_affine else []
        words += ["not shown" if not self.pixels else "colours changed" if self.colour else "colours kept"]
        return ", ".join(words)


@dataclass(frozen=True)
class Needs:
    """All that a method asks of the data: loader, doctor and contact sheet read this and know no method.

    Attributes:
        frames: Which frames make up a sample.
        crops: Groups of views by name; one that others are cut from stands before them.
        flow: (frame, other frame) whose flow is wanted, in pixels of the views of `flow_on`.
        flow_on: A group with one unmirrored box that all frames share.
    """

    frames: Frames
    crops: Mapping[str, Crops] = field(default_factory=dict)
    flow: tuple[tuple[int, int], ...] = ()
    flow_on: str | None = None

    def __post_init__(self) -> None:
        count, seen = self.frames.count, set()
        for name, crops in self.crops.items():
            if "/" in name:
                raise ValueError(f"a group of views cannot be called {name!r}: the slash is for what belongs to it")
            if crops.within is not None and crops.within not in seen:
                raise ValueError(f"group {name} is cut from {crops.within!r}, which has to stand before it")
            if not all(0 <= frame < count for frame in crops.of(self.frames)):
                raise ValueError(f"group {name} is cut from frames {crops.frames}; a clip has 0 to {count - 1}")
            seen.add(name)
        if not self.flow:
            return
        on = self.crops.get(self.flow_on or "")
        if on is None or on.count != 1 or on.flip is not None or not (on.same_box or count == 1):
            raise ValueError(
                f"flow goes with a group of one unmirrored box that all frames share, got flow_on={self.flow_on!r}"
            )

    def describe(self) -> list[str]:
        """Return one line per group of views, and one on flow, that say what they are."""
        lines = [f"{name}: {crops.describe(self.frames)}" for name, crops in self.crops.items()]
        if self.flow:
            pairs = ", ".join(f"{i} to {j}" for i, j in self.flow)
            lines.append(f"flow: from frame {pairs}, on {self.flow_on}")
        return lines


class Views(Settings):
    """The `views` section of a method: sizes and ranges, of which its needs follow."""

    @abstractmethod
    def needs(self) -> Needs:
        """Return what the method asks of the data."""


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g}–{interval[1]:g}"
