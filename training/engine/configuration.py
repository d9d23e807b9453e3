"""Comparing a run's configuration with the one it was started with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Complete = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Gives a configuration that was saved by an earlier version the keys that it did not have yet, with their defaults."""


class ConfigurationChangedError(ValueError):
    """A run directory is asked to go on with another configuration, or with other data."""


def differences(old: Any, new: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ, each with the old and the new one (None where there is none)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for name in [*old, *(name for name in new if name not in old)]:
            found |= differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        return found
    return {} if old == new else {key: (old, new)}


def essential(differing: Mapping[str, tuple[Any, Any]], may_change: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the differences that a run cannot go on with: those not at, nor below, a key that may change."""
    free = tuple(may_change)
    return {key: values for key, values in differing.items() if not _is_free(key, free)}


def refuse_changes(differing: Mapping[str, tuple[Any, Any]], *, what: str, where: str) -> None:
    """Raise an error that lists what changed, if anything did.

    Raises:
        ConfigurationChangedError: Something did.
    """
    if not differing:
        return
    lines = "\n".join(f"  {key}: {_show(old)} -> {_show(new)}" for key, (old, new) in differing.items())
    raise ConfigurationChangedError(
        f"{where} holds a run of another {what} (there -> asked for now):\n{lines}\n"
        "Take these values back to go on with it, or give the new ones a run directory of their own"
    )


def _is_free(key: str, free: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in free)


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
