"""What pretraining minimises: self-distillation between views (DINO) and dense prediction of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dino_loss(student: Tensor, teacher: Tensor, *, temperature: float, frames: int = 2) -> Tensor:
    """Mean cross-entropy between the views of two frames or of one (DINO on frame pairs; Caron et al. 2021, eq. 3).

    A cross-entropy is linear in the teacher: Σ_k t_k (lse(s) − s_k) = lse(s) − ⟨t, s⟩. So all terms together need one
    log-sum-exp per student view and one matrix product, and nothing as wide as the prototypes is kept for backward.

    Args:
        student: (B, V, K) outputs of the head, the Q global views first.
        teacher: (B, Q, K) probabilities of the global views, without gradient.
        temperature: Student temperature.
        frames: Frames that the global views are of, as many of each.

    Returns:
        The mean over batch and the pairs of `dino_pairs(Q, V, frames)`, a scalar in float32 or better.
    """
    with exactly(student):
        student = at_least_float32(student) / temperature
        wanted = _wanted_pairs(teacher.shape[1], student.shape[1], student.device, frames)
        agreement = teacher.to(student.dtype) @ student.transpose(1, 2)  # (B, Q, V)
        cross_entropy = student.logsumexp(dim=2).unsqueeze(1) - agreement
        return (cross_entropy * wanted).sum() / (wanted.sum() * student.shape[0])


def teacher_probabilities(outputs: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """Sharpen and centre what the teacher's head says: softmax((outputs − centre) / temperature), (B, Q, K)."""
    return ((at_least_float32(outputs) - centre) / temperature).softmax(dim=-1)


def cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the student's distributions (Caron et al. 2021, equation 2), one for each.

    Args:
        student: (..., K) outputs of the head.
        teacher: (..., K) probabilities, without gradient.
        temperature: Student temperature.

    Returns:
        (...,) in float32 or better.
    """
    logits = at_least_float32(student) / temperature
    return logits.logsumexp(dim=-1) - (teacher.to(logits.dtype) * logits).sum(dim=-1)


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy, in nats, of distributions over the last axis."""
    return torch.special.entr(probabilities).sum(dim=-1).mean()


def prediction_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 − 2·cos, averaged over batch and tokens (spec: dynamics, loss per level).

    Args:
        predicted: (B, 1+N, D).
        target: (B, 1+N, D).

    Returns:
        A scalar between 0 and 4, in float32 or better.
    """
    cosine = F.cosine_similarity(at_least_float32(predicted), at_least_float32(target), dim=-1)
    return (2 - 2 * cosine).mean()


def dino_pairs(global_views: int, views: int, frames: int = 2) -> list[tuple[int, int]]:
    """List the (teacher view, student view) pairs that the DINO loss compares.

    Left out are a view with itself and a global view with the same box in the other frame.

    Args:
        global_views: Global views of all frames together: the boxes of the first frame, then of the second.
        views: All views, the global ones first.
        frames: How many frames there are.
    """
    return [(q, v) for q, v in _wanted_pairs(global_views, views, torch.device("cpu"), frames).nonzero().tolist()]


def _wanted_pairs(global_views: int, views: int, device: torch.device, frames: int) -> Tensor:
    """Whether teacher view q is compared with student view v, (Q, V)."""
    if global_views % frames or not 2 <= global_views <= views or (frames == 2 and views == 2):
        raise ValueError(
            f"{global_views} global of {views} views cannot be compared; wanted are as many global views of one frame "
            "as of the other, and at least 2 each, or local views"
        )
    teacher, student = torch.arange(global_views, device=device)[:, None], torch.arange(views, device=device)
    same_box = (student - teacher) % (global_views // frames) == 0
    return ~same_box | (student >= global_views)


def exactly(tensor: Tensor) -> torch.autocast:
    """Switch autocast off for a while: what is within computes in its own precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half precision as float32, and anything else as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
