"""Moving averages of weights: the teacher's side of a network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Modules that follow others: all their weights move in one fused operation.

    Args:
        follows: Maps every averaged module to the module of the same architecture that it follows; may be empty.
        buffers: Whether buffers are copied; else those of the averages are their own.
    """

    def __init__(self, follows: Mapping[nn.Module, nn.Module], *, buffers: bool = True) -> None:
        self.averages: list[Tensor] = []
        self.sources: list[Tensor] = []
        self.buffered: list[tuple[nn.Module, nn.Module]] = []
        for average, source in follows.items():
            _check_alike(average, source)
            self.averages += average.parameters()
            self.sources += source.parameters()
            if buffers and any(True for _ in average.buffers()):
                self.buffered.append((average, source))

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Set every average to momentum · average + (1 − momentum) · source; buffers are copied."""
        if not self.averages:
            return
        torch._foreach_lerp_(self.averages, self.sources, 1 - momentum)
        for modules in self.buffered:  # modules, as moving one to a device keeps its parameters but not its buffers
            for average, source in zip(*(module.buffers() for module in modules), strict=True):
                average.copy_(source)


def _check_alike(average: nn.Module, source: nn.Module) -> None:
    shapes = [{name: tuple(p.shape) for name, p in module.named_parameters()} for module in (average, source)]
    if shapes[0] != shapes[1]:
        different = sorted(shapes[0].items() ^ shapes[1].items())
        raise ValueError(f"a moving average needs the parameters of what it follows; these differ: {different[:4]}")
