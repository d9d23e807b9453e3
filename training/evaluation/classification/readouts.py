"""A linear classifier on frozen features, and how good predictions are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-6, 1))  # of the mean squared weight, tried on a part of the training
STEPS = 200
SEED = 0


@dataclass(frozen=True)
class ClassScores:
    """How good predictions are, in percent.

    Attributes:
        top1: Of all pictures, those whose class was named.
        mean_class: The mean over classes of the same.
        classes: The same for every class that occurs, by name.
    """

    top1: float
    mean_class: float
    classes: dict[str, float]


def class_scores(predicted: Tensor, labels: Tensor, classes: tuple[str, ...]) -> ClassScores:
    """Score predictions (m,) against labels (m,)."""
    right = (predicted == labels).double()
    each = {name: right[labels == number].mean().item() * 100 for number, name in enumerate(classes)}
    each = {name: value for number, (name, value) in enumerate(each.items()) if (labels == number).any()}
    return ClassScores(right.mean().item() * 100, sum(each.values()) / len(each), each)


def logistic_predict(train: Tensor, labels: Tensor, test: Tensor, *, classes: int) -> tuple[Tensor, float]:
    """Classify by multinomial logistic regression, over features standardised by the training set.

    The penalty is the one of `PENALTIES` that does best on a fifth of the training set; the classifier then learns from
    all of it.

    Args:
        train: (n, D).
        labels: (n,) int64 from 0.
        test: (m, D).
        classes: Number of classes.

    Returns:
        Predictions (m,) int64, and the penalty.
    """
    mean, std = train.double().mean(0), train.double().std(0, correction=0).clamp_min(1e-8)
    inputs, queries = (train.double() - mean) / std, (test.double() - mean) / std
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(SEED))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    best, penalty = -1.0, PENALTIES[-1]
    for candidate in PENALTIES:
        weight, bias = _fit(inputs[kept], labels[kept], classes, candidate)
        right = ((inputs[held] @ weight + bias).argmax(1) == labels[held]).double().mean().item() if len(held) else 0.0
        if right >= best:  # of equals the simpler one
            best, penalty = right, candidate
    weight, bias = _fit(inputs, labels, classes, penalty)
    return (queries @ weight + bias).argmax(1), penalty


def _fit(inputs: Tensor, labels: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(inputs.shape[1], classes, dtype=inputs.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=inputs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight + bias, labels) + penalty * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
