"""Means of logged values, gathered on the device and read rarely."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

_BETWEEN = "|"


class Averages:
    """Sums of named scalars since the last read; steps that were not taken leave them alone.

    Values that appear in some steps only (a probe of the method, a group that starts later) are averaged over those.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[tuple[str, ...], Tensor] = {}  # by the set of names of a step: sums, then the number of steps

    def add(self, values: Mapping[str, Tensor], weight: Tensor) -> None:
        """Add one step's scalars, where `weight` (a scalar on the device) is 1, or nothing where it is 0."""
        names = tuple(values)
        row = torch.stack([*(value.detach().float().reshape(()) for value in values.values()), torch.ones_like(weight)])
        row = torch.where(weight > 0, row, torch.zeros_like(row))
        self._sums[names] = self._sums[names] + row if names in self._sums else row

    def packed(self, *, across_processes: bool) -> Tensor:
        """Return all sums as one vector on the device, those of all processes added up if asked for."""
        if not self._sums:
            return torch.zeros(0, device=self._device)
        vector = torch.cat(list(self._sums.values()))
        if across_processes:
            dist.all_reduce(vector)
        return vector

    def unpack(self, numbers: list[float]) -> dict[str, float]:
        """Return the means that a `packed` vector, read, stands for, and start anew."""
        totals: dict[str, list[float]] = {}
        for names in self._sums:
            *sums, count = numbers[: len(names) + 1]
            numbers = numbers[len(names) + 1 :]
            for name, value in zip(names, sums, strict=True):
                total = totals.setdefault(name, [0.0, 0.0])
                total[0] += value
                total[1] += count
        self._sums.clear()
        return {name: value / count for name, (value, count) in totals.items() if count}

    def state(self) -> dict[str, Tensor]:
        """Return the sums as tensors by name, for a checkpoint."""
        return {_BETWEEN.join(names): sums.cpu() for names, sums in self._sums.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up the sums of a checkpoint."""
        self._sums = {tuple(key.split(_BETWEEN)): sums.to(self._device) for key, sums in state.items()}
