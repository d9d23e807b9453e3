"""Semantic segmentation metrics as mmsegmentation computes them: one confusion matrix, pooled over the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from midway_hub.heads import IGNORE

SMALL = ("pole", "bicycle", "person", "motorcycle", "traffic sign", "rider", "traffic light")
RARE = ("bus", "wall", "train", "bicycle", "motorcycle", "rider")
ROAD_CLASSES = 19


@dataclass(frozen=True)
class SegmentationResult:
    """Numbers of one network on one data set, in percent; NaN where nothing counts.

    Attributes:
        miou: Mean over classes that occur (in truth or prediction) of intersection over union.
        accuracy: Share of the labelled pixels that are right (mmsegmentation's aAcc).
        class_accuracy: Mean over classes that occur in the truth of the share that is right (mAcc).
        iou: Per class; NaN for those that do not occur.
        recall: Per class (mmsegmentation's Acc); NaN for those that the truth does not hold.
        groups: mIoU of PooDLe's class groups, for the 19 classes of BDD100K and Cityscapes.
        pixels: Labelled pixels of the truth, per class.
    """

    miou: float
    accuracy: float
    class_accuracy: float
    iou: dict[str, float]
    recall: dict[str, float]
    groups: dict[str, float]
    pixels: dict[str, int]


class SegmentationMeter:
    """Counts which class was taken for which; meters of several processes merge into one.

    Args:
        classes: Names of the classes, in the order of their labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._confusion = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)

    def update(self, labels: np.ndarray, truth: np.ndarray, *, name: str = "the picture") -> None:
        """Add a prediction; pixels whose truth is 255 count nowhere.

        Args:
            labels: (H, W), class numbers.
            truth: (H, W), class numbers or 255.
            name: What an error calls it.

        Raises:
            ValueError: The shapes differ, or a number is no class.
        """
        if np.shape(labels) != np.shape(truth):
            raise ValueError(f"{name}: labels of shape {np.shape(labels)} for a truth of {np.shape(truth)}")
        counts = np.asarray(truth) != IGNORE
        right, found = np.asarray(truth)[counts].astype(np.int64), np.asarray(labels)[counts].astype(np.int64)
        for what, values in (("truth", right), ("prediction", found)):
            self._check(what, values, name)
        size = len(self.classes)
        self._confusion += np.bincount(right * size + found, minlength=size * size).reshape(size, size)

    def state(self) -> dict[str, Any]:
        """Return what was counted as plain JSON-able data, for `merge`: the cells K·true + predicted that hold any."""
        cells = np.flatnonzero(self._confusion)  # few of K·K, where K is large
        return {
            "classes": len(self.classes),
            "cells": cells.tolist(),
            "counts": self._confusion.flat[cells].tolist(),
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what another meter counted, as its `state()` says.

        Raises:
            ValueError: It counted another number of classes.
        """
        if state["classes"] != len(self.classes):
            raise ValueError(f"counts of {state['classes']} classes do not go with those of {len(self.classes)}")
        self._confusion.flat[state["cells"]] += np.array(state["counts"], dtype=np.int64)

    def result(self) -> SegmentationResult:
        """Return the numbers of everything that was added."""
        hit = np.diagonal(self._confusion)
        true, found = self._confusion.sum(axis=1), self._confusion.sum(axis=0)
        iou, recall = _percent(hit, true + found - hit), _percent(hit, true)
        named = dict(zip(self.classes, iou.tolist(), strict=True))
        return SegmentationResult(
            miou=_mean(iou),
            accuracy=float(_percent(hit.sum(), true.sum())),
            class_accuracy=_mean(recall),
            iou=named,
            recall=dict(zip(self.classes, recall.tolist(), strict=True)),
            groups={group: _mean([named[name] for name in names]) for group, names in _groups(self.classes).items()},
            pixels=dict(zip(self.classes, true.tolist(), strict=True)),
        )

    def _check(self, what: str, values: np.ndarray, name: str) -> None:
        if values.size and not 0 <= values.min() <= values.max() < len(self.classes):
            wrong = sorted(set(values[(values < 0) | (values >= len(self.classes))].tolist()))
            raise ValueError(
                f"{name}: the {what} holds {', '.join(map(str, wrong[:5]))}, which is no class: there are 0 to "
                f"{len(self.classes) - 1}, and {IGNORE} for what does not count in the truth"
            )


def _groups(classes: Sequence[str]) -> dict[str, list[str]]:
    """PooDLe's groups (App. H): by a class's share of a picture, and by how many pictures show it."""
    if len(classes) != ROAD_CLASSES or not {*SMALL, *RARE} <= set(classes):
        return {}
    return {
        "large": [name for name in classes if name not in SMALL],
        "small": list(SMALL),
        "common": [name for name in classes if name not in RARE],
        "rare": list(RARE),
    }


def _percent(part: Any, whole: Any) -> np.ndarray:
    whole = np.asarray(whole, dtype=np.float64)
    return 100 * np.asarray(part) / np.where(whole > 0, whole, np.nan)


def _mean(values: Any) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
