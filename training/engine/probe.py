"""Measurements during training that leave the run as it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Protocol

import torch

from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.engine.random_state import preserved

_log = logging.getLogger("midway_hub")


class Probe(Protocol):
    """Something that is measured every so often, in the first process, with the network in eval mode.

    Attributes:
        name: Its values are logged as `name/key`.
        every: Optimizer steps between two measurements.
    """

    name: str
    every: int

    def __call__(self, trainable: Trainable) -> dict[str, float]:
        """Measure; gradients are on, so that a probe can train what it reads out with."""
        ...


def run_probes(
    probes: Iterable[Probe], trainable: Trainable, device: torch.device
) -> tuple[dict[str, float], list[str]]:
    """Return what the probes measured, and the errors of those that failed.

    Random states, each module's training mode and gradients are afterwards as they were, so that a run with probes
    gives the weights of one without.
    """
    modes = {module: module.training for module in trainable.network.modules()}
    values: dict[str, float] = {}
    errors = []
    with preserved(device):
        trainable.network.eval()
        try:
            for probe in probes:
                begin = time.monotonic()
                try:
                    measured = probe(trainable)
                except Exception as error:
                    _log.exception("probe %s failed; training goes on", probe.name)
                    errors.append(f"{probe.name}: {type(error).__name__}: {error}")
                    continue
                values |= {f"{probe.name}/{key}": float(value) for key, value in measured.items()}
                values[f"{probe.name}/seconds"] = time.monotonic() - begin
        finally:
            for module, mode in modes.items():
                module.training = mode
            trainable.network.zero_grad(set_to_none=True)
    return values, errors
