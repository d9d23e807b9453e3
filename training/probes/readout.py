"""Read-outs of frozen features: nearest neighbours and a ridge classifier, both in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 4096


def knn_predict(train: Tensor, labels: Tensor, test: Tensor, *, k: int = 10, classes: int | None = None) -> Tensor:
    """Classify by a vote of the k most similar training features, each weighted by its similarity.

    Args:
        train: (n, D).
        labels: (n,) int64 from 0.
        test: (m, D).
        k: Neighbours that vote; at most n.
        classes: Number of classes; default: the highest label plus 1.

    Returns:
        (m,) int64. Similarity is the cosine, its weight exp(cosine / 0.07) as in DINO's protocol.
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    bank = F.normalize(train, dim=1)
    found = []
    for some in F.normalize(test, dim=1).split(CHUNK):
        similarity, neighbours = (some @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = ((similarity - 1) / 0.07).exp()
        votes = weight.new_zeros(len(some), classes).scatter_add_(1, labels[neighbours], weight)
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def linear_predict(
    train: Tensor, labels: Tensor, test: Tensor, *, ridge: float = 1e-3, classes: int | None = None
) -> Tensor:
    """Classify by ridge regression on one-hot labels, over features standardised by the training set.

    Args:
        train: (n, D).
        labels: (n,) int64 from 0.
        test: (m, D).
        ridge: Weight of the squared coefficients against the mean squared error.
        classes: Number of classes; default: the highest label plus 1.

    Returns:
        (m,) int64.
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    mean, std = train.double().mean(dim=0), train.double().std(dim=0, correction=0).clamp_min(1e-8)
    inputs, queries = (train.double() - mean) / std, (test.double() - mean) / std
    wanted = F.one_hot(labels, classes).double()
    offset = wanted.mean(dim=0)
    gram = inputs.T @ inputs / len(inputs) + ridge * torch.eye(inputs.shape[1], dtype=torch.double, device=train.device)
    weight = torch.linalg.solve(gram, inputs.T @ (wanted - offset) / len(inputs))
    return (queries @ weight + offset).argmax(dim=1)


def classification_scores(predicted: Tensor, labels: Tensor, *, classes: int) -> dict[str, float]:
    """Return `accuracy` and `miou`, the mean over classes that occur of intersection over union.

    Args:
        predicted: (m,) int64.
        labels: (m,) int64.
        classes: Number of classes.
    """
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).double()
    hit = confusion.diagonal()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - hit
    occurs = union > 0
    return {
        "accuracy": (hit.sum() / confusion.sum()).item(),
        "miou": (hit[occurs] / union[occurs]).mean().item(),
    }
