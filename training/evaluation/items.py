"""Which items of a data set are measured, and whether all of its files are there."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from midway_hub.file_names import fitting
from midway_hub.training.data.flow.sample import FlowDataset
from midway_hub.training.data.segmentation.sample import SegmentationDataset

SHOWN_FILES = 5

logger = logging.getLogger("midway_hub")


def chosen_items(dataset: FlowDataset | SegmentationDataset, limit: int | None = None) -> list[int]:
    """Return the numbers of the items to measure, after a look at whether all files are there.

    Args:
        dataset: Of which.
        limit: At most so many, evenly spread over the data set; default: all.

    Raises:
        FileNotFoundError: Files are missing; some are named.
        ValueError: The data set is empty, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    missing = dataset.missing()
    if missing:
        shown = "\n  ".join(missing[:SHOWN_FILES])
        more = f"\n  and {len(missing) - SHOWN_FILES} more" if len(missing) > SHOWN_FILES else ""
        raise FileNotFoundError(f"{dataset.name} lacks {len(missing)} files:\n  {shown}{more}")
    if not len(dataset):
        raise ValueError(f"{dataset.name} holds nothing to evaluate on")
    published = getattr(dataset, "expected", None) or getattr(dataset, "published", None)
    if published not in (None, len(dataset)):
        logger.warning(
            "%s has %d of the %d items that are published; numbers will not compare with others'",
            dataset.name,
            len(dataset),
            published,
        )
    return spread(len(dataset), limit)


def spread(count: int, wanted: int | None) -> list[int]:
    """Return `wanted` numbers below `count`, evenly spread from 0; all of them by default."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return [int(number) for number in np.linspace(0, count, wanted, endpoint=False)]


def picture_file(folder: Path, index: int, *names: str) -> Path:
    """Return where the picture of an item goes: its number first, then names, made safe for every file system."""
    words = ["".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name) for name in names]
    return folder / fitting("_".join([f"{index:06d}", *words])[:120], ".png", folder)
