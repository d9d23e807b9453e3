"""Evaluations of label propagation as tables."""

from __future__ import annotations

from midway_hub.training.evaluation.propagation.davis_scores import DavisScores
from midway_hub.training.evaluation.propagation.evaluate import PropagationEvaluation
from midway_hub.training.evaluation.propagation.pck import PoseScores
from midway_hub.training.evaluation.tables import Rows, part, shown


def propagation_table(result: PropagationEvaluation) -> Rows:
    """Return the numbers in percent, one row, under the protocol's name, and how frames came to the encoder."""
    numbers = result.numbers
    if isinstance(numbers, DavisScores):
        header = ["J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay", "objects"]
        values = [shown(numbers.jf_mean)]
        for each in (numbers.j, numbers.f):
            values += [shown(each.mean), shown(each.recall), shown(each.decay)]
        values.append(str(numbers.objects))
    elif isinstance(numbers, PoseScores):
        header = [*(f"PCK@{limit}" for limit in numbers.pck), "joints"]
        values = [*map(shown, numbers.pck.values()), str(numbers.keypoints)]
    else:
        header, values = ["mIoU", "pixel accuracy"], [shown(numbers.miou), shown(numbers.accuracy)]
    title = f"{result.dataset}, {part(result.sequences, result.of, 'videos')}, protocol {result.propagation['name']}"
    return Rows(title, ["features", *header, "frames"], [[result.encoder, *values, _frames(result)]])


def _frames(result: PropagationEvaluation) -> str:
    """Say how frames came to the encoder: of which patches or size, and what they were normalised by."""
    asked = result.settings.get("frames") or {"multiple": 1, "size": None}
    sides = f"{asked['multiple']}s" if asked["size"] is None else "x".join(map(str, asked["size"]))
    mean, std = (" ".join(f"{value:.4g}" for value in result.propagation[key]) for key in ("image_mean", "image_std"))
    return f"{sides}, mean {mean}, std {std}"
