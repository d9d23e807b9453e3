"""DAVIS-2017's numbers of a semi-supervised segmentation: per object over time, then over all objects (spec C)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from midway_hub.heads import IGNORE
from midway_hub.training.evaluation.propagation.masks import boundary_accuracy, region_similarity

BINS = 4


@dataclass(frozen=True)
class Statistics:
    """What J or F of an object is over time, between 0 and 1; of several objects: the means of it.

    Attributes:
        mean: Over frames.
        recall: Share of the frames where it is above one half.
        decay: Mean of the first quarter of the frames minus that of the last.
    """

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class DavisScores:
    """DAVIS-2017's numbers, in percent.

    Attributes:
        jf_mean: J&F, the mean of the two means.
        j: Region similarity.
        f: Boundary accuracy.
        objects: How many objects they are the means of.
    """

    jf_mean: float
    j: Statistics
    f: Statistics
    objects: int


def score_frame(found: np.ndarray, truth: np.ndarray, ids: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return J and F of each object in one frame; pixels whose truth is 255 do not count.

    Args:
        found: (H, W) label map.
        truth: (H, W) label map.
        ids: The objects.
    """
    void = truth == IGNORE
    masks = [(found == label, truth == label) for label in ids]
    similarity = [region_similarity(mine, true, void=void) for mine, true in masks]
    return similarity, [boundary_accuracy(mine, true, void=void) for mine, true in masks]


def statistics(values: Sequence[float]) -> Statistics:
    """Sum up J or F of one object, one value per frame, the sequence's first and last frame already left out.

    Raises:
        ValueError: There are no values.
    """
    if not len(values):
        raise ValueError("there are no frames to sum up; the first and the last one do not count, so wanted at least 3")
    over_time = np.asarray(values, dtype=np.float64)
    edges = np.floor(np.linspace(1, len(over_time), BINS + 1) + 0.5 + 1e-10).astype(int) - 1  # halves up
    first, last = over_time[edges[0] : edges[1] + 1], over_time[edges[-2] : edges[-1] + 1]
    return Statistics(
        mean=float(over_time.mean()),
        recall=float((over_time > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def davis_scores(objects: Iterable[Mapping[str, Sequence[float]]]) -> DavisScores:
    """Return the numbers of a data set.

    Args:
        objects: Of every object of every sequence, values `j` and `f` per frame, as for `statistics`.

    Raises:
        ValueError: There are no objects, or one has no values.
    """
    objects = list(objects)
    if not objects:
        raise ValueError("there are no objects to score; a sequence's first label map names them by numbers above 0")
    j, f = (_means([statistics(item[key]) for item in objects]) for key in ("j", "f"))
    return DavisScores(jf_mean=(j.mean + f.mean) / 2, j=j, f=f, objects=len(objects))


def _means(found: Sequence[Statistics]) -> Statistics:
    """In percent."""
    return Statistics(
        *(100 * float(np.mean([getattr(each, field) for each in found])) for field in ("mean", "recall", "decay"))
    )
