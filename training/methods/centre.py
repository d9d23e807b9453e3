"""The running mean of what a teacher says, which its answers are centred by (Caron et al. 2021, section 3.1)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Centre(nn.Module):
    """A mean that moves once per optimizer step, over micro-batches and processes.

    Args:
        width: Numbers of an answer.
        momentum: Share of itself that the mean keeps in a step.
    """

    value: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, width: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(width))
        self.register_buffer("total", torch.zeros(width), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def gather(self, answers: Tensor) -> None:
        """Add answers (..., width) to those of this step."""
        rows = answers.flatten(0, -2).to(self.total.dtype)
        self.total += rows.sum(dim=0)
        self.count += len(rows)

    @torch.no_grad()
    def move(self) -> None:
        """Move towards the mean of this step's answers, of all processes; without any, stay."""
        gathered = torch.cat([self.total, self.count[None]])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(gathered)
        mean = gathered[:-1] / gathered[-1].clamp(min=1)
        self.value.lerp_(torch.where(gathered[-1] > 0, mean, self.value), 1 - self.momentum)
        self.forget()

    def forget(self) -> None:
        """Drop what was gathered since the last step."""
        self.total.zero_()
        self.count.zero_()
