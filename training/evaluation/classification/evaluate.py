"""Evaluate frozen features of whole pictures by k nearest neighbours and by a linear classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.versions import versions
from midway_hub.training.evaluation.classification.features import PictureEncoder, picture_features
from midway_hub.training.evaluation.classification.pictures import LabelledPictures
from midway_hub.training.evaluation.classification.readouts import ClassScores, class_scores, logistic_predict
from midway_hub.training.evaluation.records import RESULTS, dumped, plain
from midway_hub.training.evaluation.tables import Rows, shown
from midway_hub.training.probes.readout import knn_predict

NEIGHBOURS = 20
FEATURES = "features"
SHOWN_CLASSES = 40


@dataclass(frozen=True)
class ClassificationEvaluation:
    """What features of pictures are worth.

    Attributes:
        data: The pictures' folder.
        classes: How many classes there are.
        train: How many pictures were learned from.
        test: How many were measured on.
        split: Where the two come from.
        encoder: What tables call the encoder.
        numbers: Scores of each read-out: `knn` and `linear`.
        chance: Top-1 accuracy of naming the commonest class of the training set, in percent.
        settings: What the numbers depend on: weights, features, processor, precision, neighbours, penalty.
    """

    data: str
    classes: int
    train: int
    test: int
    split: str
    encoder: str
    numbers: dict[str, ClassScores]
    chance: float
    settings: dict[str, Any]


def evaluate_classification(
    encoder: PictureEncoder,
    pictures: LabelledPictures,
    *,
    neighbours: int = NEIGHBOURS,
    batch: int = 16,
    out: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ClassificationEvaluation:
    """Read classes out of frozen features.

    k-NN votes as in DINO's protocol (cosine, weight exp(cosine / 0.07), k = 20); the linear classifier is a multinomial
    logistic regression whose penalty is chosen on a fifth of the training set.

    Args:
        encoder: Whose features.
        pictures: Labelled pictures, split.
        neighbours: k; at most the number of training pictures counts.
        batch: Pictures that are encoded at a time.
        out: Folder for results.json and features/, from which an interrupted evaluation goes on.
        progress: Called with what is done, how far it is and how far it goes.

    Raises:
        ValueError: A picture cannot be read, features are not finite, or fewer than one neighbour.
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    keep = None if out is None else out / FEATURES
    files = [path for path, _ in (*pictures.train, *pictures.test)]
    features = picture_features(
        encoder, files, keep=keep, batch=batch, progress=lambda done, total: progress("pictures", done, total)
    )
    labels = torch.tensor([label for _, label in (*pictures.train, *pictures.test)])
    learnt, asked = features.split([len(pictures.train), len(pictures.test)])
    known, truth = labels.split([len(pictures.train), len(pictures.test)])
    count = len(pictures.classes)
    linear, penalty = logistic_predict(learnt, known, asked, classes=count)
    voted = knn_predict(learnt, known, asked, k=neighbours, classes=count)
    result = ClassificationEvaluation(
        data=str(pictures.root),
        classes=count,
        train=len(learnt),
        test=len(asked),
        split=pictures.split,
        encoder=encoder.name,
        numbers={
            "knn": class_scores(voted, truth, pictures.classes),
            "linear": class_scores(linear, truth, pictures.classes),
        },
        chance=(truth == known.bincount().argmax()).double().mean().item() * 100,
        settings={**encoder.settings, "neighbours": neighbours, "penalty": penalty},
    )
    if out is not None:
        replace_text(out / RESULTS, dumped({**plain(result), "versions": versions()}))
    return result


def classification_tables(result: ClassificationEvaluation) -> list[Rows]:
    """Return the scores, and those of every class where there are not too many to look at."""
    title = f"{result.data}, {result.train} pictures to learn from, {result.test} to test ({result.split}), in percent"
    numbers = result.numbers.items()
    rows = [[result.encoder, name, shown(score.top1), shown(score.mean_class)] for name, score in numbers]
    rows.append(["commonest class", "-", shown(result.chance), "-"])
    tables = [Rows(title, ["features", "read-out", "top-1", "mean of classes"], rows)]
    if result.classes <= SHOWN_CLASSES:
        occurring = next(iter(result.numbers.values())).classes
        each = [[name, *(shown(score.classes[name]) for _, score in numbers)] for name in occurring]
        tables.append(Rows("accuracy by class", ["class", *result.numbers], each))
    return tables
