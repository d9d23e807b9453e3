"""Segmentation evaluations as tables: the numbers, and one row per class."""

from __future__ import annotations

from typing import Any

from midway_hub.training.evaluation.segmentation.evaluate import SegmentationEvaluation
from midway_hub.training.evaluation.tables import Rows, part, shown


def segmentation_table(result: SegmentationEvaluation) -> Rows:
    """Return the numbers in percent, one row."""
    numbers = result.numbers
    header = ["head", "made on", "mIoU", "aAcc", "mAcc", *(f"mIoU {group}" for group in numbers.groups)]
    values = [numbers.miou, numbers.accuracy, numbers.class_accuracy, *numbers.groups.values()]
    row = [result.settings["head"], how(result.settings), *map(shown, values)]
    return Rows(f"{result.dataset}, {part(result.pictures, result.of, 'pictures')}", header, [row])


def class_table(result: SegmentationEvaluation) -> Rows:
    """Return one row per class: IoU and accuracy in percent, and its share of the labelled pixels."""
    numbers = result.numbers
    total = max(sum(numbers.pixels.values()), 1)
    rows = [
        [name, shown(numbers.iou[name]), shown(numbers.recall[name]), f"{100 * pixels / total:.2f}"]
        for name, pixels in numbers.pixels.items()
    ]
    return Rows("by class", ["class", "IoU", "Acc", "% of pixels"], rows)


def how(settings: dict[str, Any]) -> str:
    """Say at which resolution and in which windows labels were made."""
    size = f"within {'x'.join(map(str, settings['scale']))}" if settings["scale"] else "own size"
    if not settings["slide"]:
        return f"{size}, whole"
    return f"{size}, windows of {settings['slide'][0]} every {settings['slide'][1]}"
