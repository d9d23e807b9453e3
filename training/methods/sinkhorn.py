"""Sinkhorn-Knopp: soft assignments whose rows and columns weigh alike (Cuturi 2013; as in DoRA, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub.training.losses import at_least_float32


@torch.no_grad()
def sinkhorn(similarity: Tensor, *, iterations: int = 30, epsilon: float = 0.05) -> Tensor:
    """Assign N things to K prototypes, every prototype as much as any other, sample by sample.

    Rows and columns of exp(similarity / epsilon) are scaled in turn; in logarithms, so that a prototype that is far
    less like all things than another one does not vanish in float32.

    Args:
        similarity: (B, N, K). Positive infinities count as the sample's largest number.
        iterations: Rounds of balancing.
        epsilon: Entropy that is left to the assignment.

    Returns:
        (B, N, K) in float32 or better: what belongs to a thing sums to 1.
    """
    logits = at_least_float32(similarity)
    largest = logits.masked_fill(logits.isposinf(), -torch.inf).amax(dim=(1, 2), keepdim=True)
    shares = torch.where(logits.isposinf(), largest, logits) / epsilon
    for _ in range(iterations):
        shares = shares.log_softmax(dim=1)  # what a row adds up to drops out where columns are scaled next
        shares = shares.log_softmax(dim=2)
    return shares.exp()
