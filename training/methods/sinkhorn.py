"""Sinkhorn-Knopp: soft assignments whose rows and columns weigh alike (Cuturi 2013; as in DoRA, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub.training.losses import at_least_float32


@torch.no_grad()
def sinkhorn(similarity: Tensor, *, iterations: int = 30, epsilon: float = 0.05) -> Tensor:
    """Assign N things to K prototypes, every prototype as much as any other.

    Args:
        similarity: (B, N, K).
        iterations: Rounds of balancing.
        epsilon: Entropy that is left to the assignment.

    Returns:
        (B, N, K) in float32 or better: what belongs to a thing sums to 1.
    """
    logits = at_least_float32(similarity) / epsilon
    shares = (logits - logits.amax(dim=(1, 2), keepdim=True)).exp().mT  # (B, K, N)
    shares = shares / shares.sum(dim=(1, 2), keepdim=True)
    prototypes, things = shares.shape[1:]
    for _ in range(iterations):
        shares = shares / (shares.sum(dim=2, keepdim=True).clamp(min=1e-30) * prototypes)
        shares = shares / (shares.sum(dim=1, keepdim=True).clamp(min=1e-30) * things)
    return (shares * things).mT
