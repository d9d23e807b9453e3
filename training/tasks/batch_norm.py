"""BatchNorm over the examples of all processes, as mmsegmentation and iBOT train UperNet (spec B3)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from midway_hub.training.losses import at_least_float32


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Have every BatchNorm of a network learn from the examples of all processes together.

    Parameters, buffers and their names stay what they are, so that checkpoints and exports know nothing of it.

    Args:
        network: Changed in place; before it is wrapped for several processes.
        device: Where it will be trained: torch's own SyncBatchNorm takes no tensors on the CPU.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the examples of all processes, on any device."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise features (B, C, h, w); in training by mean and variance over all processes."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            values = at_least_float32(input)
            count = _summed(values.new_tensor([values.numel() / values.shape[1]]))
            mean = _summed(values.sum(dim=(0, 2, 3))) / count
            centred = values - mean[:, None, None]
            variance = _summed(centred.square().sum(dim=(0, 2, 3))) / count
            scale = self.weight * torch.rsqrt(variance + self.eps)
            self._remember(mean.detach(), (variance * count / (count - 1)).detach())
            return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch does, towards these."""
        for running, found in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(found.to(running.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's gradient is the sum of all gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _Sum.forward(context, gradient.contiguous())


def _summed(value: Tensor) -> Tensor:
    return _Sum.apply(value)
