"""The best weights of a run so far, by a number that one of its probes measures; every checkpoint holds them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_log = logging.getLogger("midway_hub")


@dataclass(frozen=True)
class Keep:
    """What the best weights are kept by.

    Attributes:
        name: Of the number, as it is logged: the probe's name, then its own.
        lowest: Whether the lowest is best; else the highest.
        measured_on: What decides the number, as plain values: weights kept by another are no rival.
    """

    name: str
    lowest: bool
    measured_on: Mapping[str, Any] = field(default_factory=dict)

    def better(self, value: float, than: float) -> bool:
        """Return whether a number beats another."""
        return value < than if self.lowest else value > than


class Best:
    """The best weights so far: they are state of the run, as its last ones are, and go on with it.

    Args:
        keep: What they are kept by.

    Attributes:
        network: State dict of the best weights on the CPU; empty before the first measurement.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._facts: dict[str, Any] | None = None
        self.network: dict[str, Tensor] = {}

    def observe(self, step: int, values: Mapping[str, float], network: nn.Module) -> None:
        """Take the weights after `step` steps if what was just measured of them is better; of equals the first stays.

        Args:
            step: Optimizer steps done.
            values: What was measured, by name; without the number, or where it is not finite, nothing happens.
            network: What was measured.
        """
        value = values.get(self._keep.name, math.nan)
        if not math.isfinite(value) or (self._facts and not self._keep.better(value, self._facts["value"])):
            return
        self._facts = {"step": step, "value": value, **self._rule()}
        self.network = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
        _log.info("step %d is the best so far: %s %.5g", step, self._keep.name, value)

    def facts(self) -> dict[str, Any] | None:
        """Return step, value and what they are kept by, as plain values for a checkpoint; None without any."""
        return self._facts

    def load(self, facts: Mapping[str, Any] | None, network: dict[str, Tensor]) -> None:
        """Take up those of a checkpoint, unless they were kept by another number or measured on something else."""
        if facts is None:
            return
        before = {key: facts.get(key) for key in self._rule()}
        if before != self._rule():
            _log.warning(
                "the best weights so far (step %d) were kept by %s, now it is %s: they are let go",
                facts["step"],
                before,
                self._rule(),
            )
            return
        self._facts, self.network = dict(facts), network

    def _rule(self) -> dict[str, Any]:
        return {"name": self._keep.name, "lowest": self._keep.lowest, "measured_on": dict(self._keep.measured_on)}
