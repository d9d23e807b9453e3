"""The command that makes a run again."""

from __future__ import annotations

import json
import shlex
from typing import Any

from midway_hub.training.engine.configuration import differences
from midway_hub.training.report.record import RunRecord, flatten

_NOT_WHAT_IS_LEARNED = ("recipe", "description")


def command_of(record: RunRecord) -> str:
    """Put together the command that makes a run again: its recipe, and every setting in which the run differs.

    Where the data lies is left for the reader to fill in.
    """
    recipe = str(record.config.get("recipe") or "")
    kind = str(record.config.get("kind", "pretrain"))
    as_it_was = ["python", "-m", "midway_hub.training", kind]
    wanted = _recipe(recipe, kind)
    if wanted is None:
        return f"{shlex.join(as_it_was)} config.yaml  # of the run"
    said = flatten(record.config)
    changed = [key for key in differences(wanted, record.config) if key in said and key not in _NOT_WHAT_IS_LEARNED]
    overrides = [f"{key}={_value(key, said[key])}" for key in changed]
    return shlex.join([*as_it_was, recipe, *overrides])


def _recipe(name: str, kind_name: str) -> dict[str, Any] | None:
    """The configuration that a recipe gives by itself, or None where there is no such recipe any more."""
    try:
        from midway_hub.training.kinds import kind

        return kind(kind_name).load(name, ()).to_dict()
    except (ValueError, OSError):
        return None


def _value(key: str, value: Any) -> str:
    is_path = key.endswith(("path", "images", "labels", "root")) or ".roots." in key
    if is_path and isinstance(value, str):
        return "PATH"
    return value if isinstance(value, str) else json.dumps(value)
