"""Lists of classes with their colours, by name or of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from midway_hub.heads import IGNORE
from midway_hub.training.data.segmentation.classes_ade20k import ADE20K
from midway_hub.training.data.segmentation.classes_street import CAMVID, CITYSCAPES
from midway_hub.training.data.synthetic.classes import CLASSES, PALETTE

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set, in the order of their labels.

    Attributes:
        names: One per class.
        palette: Red, green and blue of each.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= IGNORE:
            raise ValueError(f"a segmentation has 2 to {IGNORE} classes ({IGNORE} is no class), got {len(self.names)}")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"classes have names of their own, but {', '.join(twice)} is there more than once")
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.names)} classes need as many colours, got {len(self.palette)}")
        for colour in self.palette:
            if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
                raise ValueError(f"a colour is red, green and blue from 0 to 255, got {colour!r}")

    def __len__(self) -> int:
        return len(self.names)


CLASS_LISTS: dict[str, ClassList] = {
    "ade20k": ClassList(*zip(*ADE20K, strict=True)),
    "bdd100k": ClassList(*zip(*CITYSCAPES, strict=True)),
    "camvid": ClassList(*zip(*CAMVID, strict=True)),
    "cityscapes": ClassList(*zip(*CITYSCAPES, strict=True)),
    "world": ClassList(CLASSES, PALETTE),
}
"""The lists that have a name."""


def class_list(classes: str | Sequence[str], palette: Sequence[Sequence[int]] | None = None) -> ClassList:
    """Return the classes of a known name, or a list of one's own.

    Args:
        classes: A name of `CLASS_LISTS`, or the classes' names in the order of their labels.
        palette: Colours, where the list's own are not wanted; a list of one's own has `distinct_colours` by default.

    Raises:
        ValueError: An unknown name, or classes and colours that do not fit.
    """
    colours = None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette)
    if not isinstance(classes, str):
        return ClassList(tuple(classes), distinct_colours(len(classes)) if colours is None else colours)
    if classes not in CLASS_LISTS:
        near = difflib.get_close_matches(classes, CLASS_LISTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(CLASS_LISTS)}"
        raise ValueError(f"unknown class list {classes!r}; {hint}")
    known = CLASS_LISTS[classes]
    return known if colours is None else ClassList(known.names, colours)


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Return colours that differ, those of PASCAL VOC's colour map from 1 on: bits of the number, highest first."""
    return tuple(_voc_colour(number) for number in range(1, count + 1))


def _voc_colour(number: int) -> Colour:
    red, green, blue = (sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))
    return red, green, blue
