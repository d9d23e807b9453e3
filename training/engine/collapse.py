"""Watching for losses that sit at the value they have when the network has collapsed."""

from __future__ import annotations

from collections.abc import Mapping

_CLOSE = 0.01


class CollapseWatch:
    """Says once when a loss stays within 1 % of its value of collapse.

    Args:
        values: For names of losses, the value at collapse and what to do about it; see `Trainable.collapse_values`.
        patience: Optimizer steps that it may stay there; runs start there too.
    """

    def __init__(self, values: Mapping[str, tuple[float, str]], *, patience: int) -> None:
        self._values = values
        self._patience = patience
        self._since: dict[str, int] = {}
        self._said: set[str] = set()

    def observe(self, step: int, means: Mapping[str, float]) -> dict[str, str]:
        """Return warnings by name of loss, given the means logged at a step."""
        warnings = {}
        for name, (value, advice) in self._values.items():
            if name not in means or abs(means[name] - value) > _CLOSE * abs(value):
                self._since.pop(name, None)
                self._said.discard(name)
                continue
            since = self._since.setdefault(name, step)
            if step - since >= self._patience and name not in self._said:
                self._said.add(name)
                warnings[name] = (
                    f"{name} has been at {means[name]:.4g} since step {since}; at {value:.4g} the network has "
                    f"collapsed: every input gives the same output. {advice}"
                )
        return warnings
