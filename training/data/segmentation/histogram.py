"""Counting what label files hold, to catch a wrong encoding before it is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from midway_hub.heads import IGNORE
from midway_hub.training._text import text_table
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.segmentation.encodings import Encoding
from midway_hub.training.data.segmentation.folder import LabelledFolder
from midway_hub.training.data.segmentation.mistakes import suspicions
from midway_hub.training.data.segmentation.sample import SegmentationDataset

IGNORED, UNKNOWN = "(ignored)", "(no class)"
NAMED = 5


@dataclass(frozen=True)
class ValueCount:
    """How often a value is in the label maps.

    Attributes:
        value: As the files hold it: a number, or `#rrggbb`.
        label: Class number, 255 if the value counts nowhere, None if it is no class.
        name: Of the class.
        pixels: How many have it.
        share: Of all pixels.
        pictures: In how many it is.
    """

    value: str
    label: int | None
    name: str
    pixels: int
    share: float
    pictures: int


@dataclass(frozen=True)
class LabelHistogram:
    """What the label maps of a data set hold.

    Attributes:
        dataset: Its name.
        encoding: How values were read.
        looked_at: Label maps that were opened.
        pictures: Label maps that there are.
        values: One per value that occurs, and one per class that does not; by value.
        all_ignored: Pictures in which no pixel counts.
        unreadable: Label maps that could not be read, with the reason.
        warnings: What looks wrong, in words; empty if nothing does.
    """

    dataset: str
    encoding: str
    looked_at: int
    pictures: int
    values: tuple[ValueCount, ...]
    all_ignored: tuple[str, ...]
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]

    def table(self) -> str:
        """Return the report as text: a row per value, then the warnings."""
        rows = [(item.value, item.name, f"{item.pixels:,}", f"{item.share:.3%}", item.pictures) for item in self.values]
        title = f"{self.dataset}: labels of {self.looked_at} of {self.pictures} pictures, read as {self.encoding}"
        table = text_table(("value", "class", "pixels", "share", "pictures"), rows, title=title)
        found = [f"! {warning}" for warning in self.warnings] or ["nothing looks wrong"]
        return "\n".join([table, *found])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


def label_histogram(
    dataset: SegmentationDataset,
    limit: int | None = None,
    *,
    by_number: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LabelHistogram:
    """Count the values of label maps and say what looks wrong; nothing that they hold stops it.

    Args:
        dataset: Files are counted as they are, other data sets by their class numbers.
        limit: How many pictures to look at, spread over the data set; all by default.
        by_number: Whether each number but 255 is a class named by itself, as where nobody has named any yet; then none
            is said to be missing.
        progress: Called with how many are done and how many there are to do.

    Raises:
        ValueError: A limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is a number of pictures of at least 1, got {limit}")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    own = dataset.encoding if isinstance(dataset, LabelledFolder) and not by_number else None
    classes = tuple(f"class {number}" for number in range(IGNORE)) if by_number else dataset.classes
    encoding = own or _by_number(len(classes))
    pixels: Counter[int] = Counter()
    seen_in: Counter[int] = Counter()
    all_ignored, unreadable = [], []
    for done, index in enumerate(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist(), start=1):
        try:
            name, found = _counts(dataset, index, encoding)
        except SampleError as error:
            unreadable.append(str(error))
        else:
            pixels.update(found)
            seen_in.update(found.keys())
            if all(encoding.meaning.get(value) == IGNORE for value in found):
                all_ignored.append(name)
        if progress is not None:
            progress(done, count)
    values = _rows(() if by_number else encoding.meaning, classes, encoding, pixels, seen_in)
    warnings = [
        *suspicions(encoding, pixels, classes),
        *_absent(values, count, len(dataset)),
        *_named(all_ignored, "picture", "in which every pixel is ignored"),
        *_named(unreadable, "label map", "that cannot be read"),
    ]
    return LabelHistogram(
        dataset=dataset.name,
        encoding=encoding.name,
        looked_at=count,
        pictures=len(dataset),
        values=tuple(values),
        all_ignored=tuple(all_ignored),
        unreadable=tuple(unreadable),
        warnings=tuple(warnings),
    )


def _by_number(classes: int) -> Encoding:
    return Encoding("train_ids", {value: value for value in (*range(classes), IGNORE)}, classes)


def _counts(dataset: SegmentationDataset, index: int, encoding: Encoding) -> tuple[str, dict[int, int]]:
    """Name of a picture, and how many pixels each value of its label map has."""
    if isinstance(dataset, LabelledFolder):
        return dataset.files[index].name, encoding.count(dataset.raw_labels(index))
    sample = dataset[index]
    return sample.name, encoding.count(sample.labels)


def _rows(
    expected: Iterable[int], classes: Sequence[str], encoding: Encoding, pixels: Counter[int], seen_in: Counter[int]
) -> list[ValueCount]:
    """A row for every value that was found, and for those expected that are a class's."""
    total = max(1, pixels.total())
    rows = []
    for value in sorted({value for value in expected if encoding.meaning[value] != IGNORE} | set(pixels)):
        label = encoding.meaning.get(value)
        name = UNKNOWN if label is None else IGNORED if label == IGNORE else classes[label]
        rows.append(ValueCount(encoding.show(value), label, name, pixels[value], pixels[value] / total, seen_in[value]))
    return rows


def _absent(values: list[ValueCount], looked_at: int, pictures: int) -> list[str]:
    absent = [item.name for item in values if item.label not in (None, IGNORE) and not item.pixels]
    where = "the data set" if looked_at == pictures else f"the {looked_at} pictures looked at"
    return _named(absent, "class", f"with no pixel in {where}", plural="classes")


def _named(names: list[str], what: str, which: str, *, plural: str | None = None) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    noun = what if len(names) == 1 else plural or f"{what}s"
    return [f"{len(names)} {noun} {which}: {', '.join(names[:NAMED])}{more}"]
