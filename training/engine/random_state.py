"""The states of all random number generators of a process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CPU = torch.device("cpu")


def seed_all(seed: int, rank: int) -> None:
    """Seed Python, numpy and torch (every device) from the run's seed, differently in every process."""
    words = np.random.SeedSequence((seed, rank)).generate_state(3, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


@dataclass(frozen=True)
class RandomState:
    """Where the generators of Python, numpy, torch and, beside the CPU, of one device are."""

    python: tuple[Any, ...]
    numpy: Any
    torch: Tensor
    device: Tensor | None

    @classmethod
    def capture(cls, device: torch.device = _CPU) -> RandomState:
        """Return where they are now; waits for no device."""
        state = None
        if device.type == "cuda":
            state = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            state = torch.mps.get_rng_state()
        return cls(random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state(), state)

    def restore(self, device: torch.device = _CPU) -> None:
        """Put them back; those of a device that was not captured stay as they are."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.device is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.device, device)
        elif self.device is not None and device.type == "mps":
            torch.mps.set_rng_state(self.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the states as tensors, for a file."""
        _, words, gauss = self.python
        _, keys, position, has_gauss, cached = self.numpy
        found = {
            "python": torch.tensor(words, dtype=torch.int64),
            "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
            "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "numpy_position": torch.tensor([position, has_gauss], dtype=torch.int64),
            "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
            "torch": self.torch,
        }
        return found if self.device is None else {**found, "device": self.device}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> RandomState:
        """Return what `tensors` wrote."""
        gauss = tensors["python_gauss"].item()
        python = (3, tuple(tensors["python"].tolist()), None if np.isnan(gauss) else gauss)
        keys = tensors["numpy"].numpy().astype(np.uint32)
        position, has_gauss = tensors["numpy_position"].tolist()
        numpy = ("MT19937", keys, position, has_gauss, tensors["numpy_gauss"].item())
        return cls(python, numpy, tensors["torch"], tensors.get("device"))


@contextmanager
def preserved(device: torch.device = _CPU) -> Iterator[None]:
    """Leave the generators as they were, whatever is drawn inside."""
    state = RandomState.capture(device)
    try:
        yield
    finally:
        state.restore(device)
