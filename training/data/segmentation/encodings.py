"""How label files number the classes, and how class numbers are had from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from midway_hub.heads import IGNORE
from midway_hub.training.data.segmentation.classes import ClassList
from midway_hub.training.data.segmentation.classes_street import CITYSCAPES_LABEL_IDS
from midway_hub.training.data.segmentation.mistakes import explain_unknown

LAST_LABEL_ID = 33


class LabelError(ValueError):
    """A label map holds values that are no class."""


@dataclass(frozen=True)
class Encoding:
    """What the values of a label file mean; calling it turns a raw map into class numbers.

    Attributes:
        name: One of `ENCODINGS`.
        meaning: Class number, or 255, of every value that may occur; a colour's value is its `#rrggbb` as a number.
        classes: Number of classes.
        coloured: Whether files are colour pictures rather than one number per pixel.
    """

    name: str
    meaning: Mapping[int, int]
    classes: int
    coloured: bool = False

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Return class numbers (H, W) uint8, 255 where none counts.

        Args:
            raw: (H, W) uint8, or (H, W, 3) uint8 for colours, as the file holds it.

        Raises:
            LabelError: There are values that are no class; the message names them and what the mistake may be.
            ValueError: An array of another form.
        """
        values = self.values(raw)
        known = np.array(sorted(self.meaning))
        labels = np.array([self.meaning[value] for value in known], dtype=np.uint8)
        domain = values if self.coloured else np.arange(256)  # numbers are looked up in a table of all of them
        place = np.searchsorted(known, domain).clip(max=len(known) - 1)
        result, strange = labels[place], known[place] != domain
        if not self.coloured:
            result, strange = result[values], strange[values]
        if strange.any():
            found, counts = np.unique(values[strange], return_counts=True)
            raise LabelError(self._complaint(dict(zip(found.tolist(), counts.tolist(), strict=True))))
        return result

    def count(self, raw: np.ndarray) -> dict[int, int]:
        """Return how many pixels have each value, those that are no class included."""
        values = self.values(raw)
        if self.coloured:
            found, counts = np.unique(values, return_counts=True)
            return dict(zip(found.tolist(), counts.tolist(), strict=True))
        counts = np.bincount(values.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}

    def show(self, value: int) -> str:
        """Return how a value is written for people: a number, or `#rrggbb`."""
        return f"#{value:06x}" if self.coloured else str(value)

    def values(self, raw: np.ndarray) -> np.ndarray:
        """Return the values of a raw map, (H, W): as they are, or colours as numbers."""
        wanted = "(H, W, 3) colours" if self.coloured else "(H, W) numbers"
        if raw.dtype != np.uint8 or raw.ndim != (3 if self.coloured else 2) or (self.coloured and raw.shape[2] != 3):
            raise ValueError(f"encoding {self.name} reads {wanted} in uint8, got {raw.shape} {raw.dtype}")
        if not self.coloured:
            return raw
        red, green, blue = np.moveaxis(raw.astype(np.int32), 2, 0)
        return red << 16 | green << 8 | blue

    def _complaint(self, counts: dict[int, int]) -> str:
        shown = [f"{self.show(value)} at {counts[value]:,} pixels" for value in sorted(counts)[:5]]
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        return (
            f"{len(counts)} value{'s' * (len(counts) > 1)} of no class: {', '.join(shown)}{more}; "
            + explain_unknown(self.name, counts, self.classes)
        )


def train_ids(classes: ClassList, ignore: Collection[int] = ()) -> Encoding:
    """Values 0 .. K-1 are the classes, 255 counts nowhere.

    Args:
        classes: The K classes.
        ignore: Further values that count nowhere.
    """
    return _numbers("train_ids", classes, {value: value for value in range(len(classes))}, ignore)


def cityscapes_label_ids(classes: ClassList, ignore: Collection[int] = ()) -> Encoding:
    """Cityscapes' own label ids: 19 of 0 .. 33 are classes, the others count nowhere.

    Raises:
        ValueError: The classes are not 19.
    """
    if len(classes) != len(CITYSCAPES_LABEL_IDS):
        raise ValueError(f"encoding cityscapes_label_ids is of {len(CITYSCAPES_LABEL_IDS)} classes, got {len(classes)}")
    void = dict.fromkeys(range(LAST_LABEL_ID + 1), IGNORE)
    ids = {value: label for label, value in enumerate(CITYSCAPES_LABEL_IDS)}
    return _numbers("cityscapes_label_ids", classes, void | ids, ignore)


def zero_is_ignored(classes: ClassList, ignore: Collection[int] = ()) -> Encoding:
    """Values 1 .. K are the classes, 0 and 255 count nowhere: mmsegmentation's `reduce_zero_label`."""
    ones = {value: value - 1 for value in range(1, len(classes) + 1)}
    return _numbers("zero_is_ignored", classes, {0: IGNORE} | ones, ignore)


def colours(classes: ClassList, ignore: Collection[int] = ()) -> Encoding:
    """Every class has its colour of the palette; black counts nowhere, unless it is a class's.

    Args:
        classes: The classes, with colours that differ.
        ignore: Further colours that count nowhere, as numbers `0xrrggbb`.

    Raises:
        ValueError: Two classes share a colour.
    """
    meaning: dict[int, int] = {}
    for label, (red, green, blue) in enumerate(classes.palette):
        value = red << 16 | green << 8 | blue
        if value in meaning:
            pair = f"{classes.names[meaning[value]]!r} and {classes.names[label]!r}"
            raise ValueError(f"classes {pair} share the colour #{value:06x}, so that colours cannot tell them apart")
        meaning[value] = label
    void = dict.fromkeys((0, *ignore), IGNORE)
    return Encoding("colours", void | meaning | dict.fromkeys(ignore, IGNORE), len(classes), coloured=True)


ENCODINGS: dict[str, Callable[[ClassList, Collection[int]], Encoding]] = {
    "train_ids": train_ids,
    "zero_is_ignored": zero_is_ignored,
    "cityscapes_label_ids": cityscapes_label_ids,
    "colours": colours,
}
"""All encodings by name."""


def _numbers(name: str, classes: ClassList, meaning: dict[int, int], ignore: Collection[int]) -> Encoding:
    if not all(0 <= value <= 255 for value in ignore):
        raise ValueError(f"ignore names values from 0 to 255, got {list(ignore)}")
    return Encoding(name, meaning | dict.fromkeys((IGNORE, *ignore), IGNORE), len(classes))
