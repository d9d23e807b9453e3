"""The published ways of propagating labels through a video, number by number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD

SizeRule = Literal["short", "long", "exact"]

DEFAULT_PROTOCOL = "dino"


@dataclass(frozen=True)
class FrameSize:
    """To which size frames are brought before they are encoded.

    Attributes:
        rule: `"short"` and `"long"`: that side becomes `pixels`, the other one follows the frame's aspect ratio and is
            rounded down to a multiple. `"exact"`: the frame becomes `pixels`, whatever its aspect ratio.
        pixels: One side in pixels, or (height, width).
        multiple: What the other side is a multiple of.
    """

    rule: SizeRule
    pixels: int | tuple[int, int]
    multiple: int = 64

    def __post_init__(self) -> None:
        if self.rule not in ("short", "long", "exact"):
            raise ValueError(f"rule must be 'short', 'long' or 'exact', got {self.rule!r}")
        if isinstance(self.pixels, tuple) != (self.rule == "exact"):
            wanted = "(height, width)" if self.rule == "exact" else "one number"
            raise ValueError(f"pixels must be {wanted} under rule {self.rule!r}, got {self.pixels}")
        sides = self.pixels if isinstance(self.pixels, tuple) else (self.pixels,)
        if min(*sides, self.multiple) < 1:
            raise ValueError(f"pixels and multiple must be at least 1, got {self.pixels} and {self.multiple}")

    @classmethod
    def parse(cls, text: str) -> FrameSize:
        """Read `short:480`, `long:880` or `480x880`, a height and a width.

        Raises:
            ValueError: It is none of these.
        """
        rule, _, pixels = text.partition(":")
        first, _, second = text.partition("x")
        if rule in ("short", "long") and pixels.isdecimal():
            return cls(rule, int(pixels))  # type: ignore[arg-type]  # it is one of the two
        if first.isdecimal() and second.isdecimal():
            return cls("exact", (int(first), int(second)))
        raise ValueError(f"a size is written short:480, long:880 or 480x880 (height x width), got {text!r}")

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the network's input for a frame of that height and width."""
        if isinstance(self.pixels, tuple):
            return self.pixels
        by_height = (height <= width) == (self.rule == "short")
        fixed, other = (height, width) if by_height else (width, height)
        steps = self.pixels * other // fixed // self.multiple
        free = max(steps, 1) * self.multiple
        return (self.pixels, free) if by_height else (free, self.pixels)


@dataclass(frozen=True)
class PropagationProtocol:
    """Everything that a label propagation depends on beside the encoder; numbers of two protocols do not compare.

    A patch takes its label from the patches that are most similar to it (cosine) in the first frame and in the frames
    just before it: softmax(similarity / temperature) over the `top_k` most similar ones weighs their soft labels.

    Attributes:
        name: What the numbers are filed under.
        size: Size of the network's input.
        context: How many frames before the current one are looked at, beside the first one.
        radius: How far from its own place a patch looks, in patches; None: everywhere.
        neighbourhood: `"square"`: up to `radius` rows and columns away. `"disc"`: nearer than `radius`.
        first_everywhere: Whether the radius does not hold in the first frame.
        repeat_first: Whether the context is filled up with copies of the first frame where fewer frames were seen.
        top_k: How many patches give their label.
        temperature: Of the softmax.
        seeds: How the first frame's labels come onto the patch grid: the `"nearest"` pixel's, or `"bilinear"` shares.
        normalise: Whether each label's map is scaled to between 0 and 1 before the largest is taken.
        first_frame: What comes out for the first frame: its labels as `"given"`, or what is left of them as `"seeds"`.
        keypoint_patches: From how many patches the place of a keypoint is averaged.
        image_mean: Subtracted from the frames, per RGB channel, of encoders that do not say how theirs are normalised.
        image_std: Divided by, per RGB channel, likewise.
        own_normalisation: Whether encoders that say how their frames are normalised get them so.

    Raises:
        ValueError: A number or name is out of range.
    """

    name: str
    size: FrameSize
    context: int
    radius: float | None
    neighbourhood: Literal["square", "disc"]
    first_everywhere: bool
    repeat_first: bool
    top_k: int
    temperature: float
    seeds: Literal["nearest", "bilinear"]
    normalise: bool
    first_frame: Literal["given", "seeds"]
    keypoint_patches: int
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD
    own_normalisation: bool = True

    def __post_init__(self) -> None:
        choices = {
            "neighbourhood": ("square", "disc"),
            "seeds": ("nearest", "bilinear"),
            "first_frame": ("given", "seeds"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {getattr(self, field)!r}")
        for field, least in {"context": 0, "top_k": 1, "keypoint_patches": 1}.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.radius is not None and (self.radius < 0 or (self.radius == 0 and self.neighbourhood == "disc")):
            raise ValueError(f"radius must be at least 0 (above 0 for a disc), got {self.radius}")


DINO = PropagationProtocol(
    name="dino",
    size=FrameSize("short", 480),
    context=7,
    radius=12,
    neighbourhood="square",
    first_everywhere=False,
    repeat_first=False,
    top_k=5,
    temperature=0.1,
    seeds="nearest",
    normalise=True,
    first_frame="given",
    keypoint_patches=3,
)
"""DINO's for ViTs on DAVIS-2017, which iBOT took over; on other data sets the same numbers. Its released code divides
the red channel by 0.228, a slip for ImageNet's 0.229: that is `dino_as_released`."""

CROPMAE = PropagationProtocol(
    name="cropmae",
    size=FrameSize("exact", (480, 880)),
    context=20,
    radius=20,
    neighbourhood="disc",
    first_everywhere=True,
    repeat_first=True,
    top_k=7,
    temperature=0.7,
    seeds="bilinear",
    normalise=False,
    first_frame="seeds",
    keypoint_patches=5,
)
"""The one that SiamMAE, CropMAE and T-CoRe report, as for DAVIS-2017; VIP and JHMDB have other sizes and `top_k`.
CropMAE's released code scores DAVIS at 480×880, where boundaries may be 9 pixels off; at the masks' own size, 8."""

PROTOCOLS: dict[str, PropagationProtocol] = {
    "dino": DINO,
    "dino_as_released": replace(
        DINO, name="dino_as_released", image_std=(0.228, 0.224, 0.225), own_normalisation=False
    ),
    "cropmae": CROPMAE,
    "cropmae/vip": replace(CROPMAE, name="cropmae/vip", size=FrameSize("long", 880), top_k=10),
    "cropmae/jhmdb": replace(CROPMAE, name="cropmae/jhmdb", size=FrameSize("exact", (320, 320))),
}


def adjusted(protocol: PropagationProtocol, changes: Mapping[str, Any]) -> PropagationProtocol:
    """Change numbers of a protocol; its name then says which.

    Args:
        protocol: What is changed.
        changes: New values by field; a size as `FrameSize.parse` reads it.

    Raises:
        ValueError: There is no such field, or a value is out of range.
    """
    known = [field.name for field in fields(protocol) if field.name != "name"]
    for field, value in changes.items():
        if field not in known:
            raise ValueError(f"a protocol has no {field!r}; it has {', '.join(known)}")
        if field == "size" and isinstance(value, str):
            value = FrameSize.parse(value)
        value = tuple(value) if isinstance(value, list) else value
        wanted = (int, float, type(None)) if field == "radius" else (type(getattr(protocol, field)),)
        if not isinstance(value, wanted):
            raise ValueError(f"{field} of {protocol.name} is {getattr(protocol, field)!r}; it cannot be {value!r}")
        changed: dict[str, Any] = {field: value, "name": f"{protocol.name}, {field}={changes[field]}"}
        if field in ("image_mean", "image_std"):
            changed["own_normalisation"] = False
        protocol = replace(protocol, **changed)
    return protocol


def find_protocol(name: str, *, dataset: str | None = None) -> PropagationProtocol:
    """Return a protocol by its name, in the form that it has for a data set.

    Args:
        name: One of `PROTOCOLS`, such as `dino` or `cropmae`.
        dataset: `davis`, `vip` or `jhmdb`; default: as for DAVIS.

    Raises:
        ValueError: There is no such protocol.
    """
    found = PROTOCOLS.get(f"{name}/{dataset}") or PROTOCOLS.get(name)
    if found is None:
        raise ValueError(f"there is no propagation protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return found
