"""From a recipe and dotted overrides to typed settings, with errors that name every key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.fields import section_at
from midway_hub.training.overrides import ConfigError, overridden
from midway_hub.training.recipes import read_recipe
from midway_hub.training.settings import Settings

S = TypeVar("S", bound=Settings)
LENGTH = ("epochs", "steps")
"""Keys that say how long a run is."""


class Configuration(Settings):
    """What every kind of run has in common; each kind adds sections of its own."""

    recipe: str
    """Where the configuration came from: a recipe's name or a file."""

    description: str = ""
    """One line on what the run is for."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, sampling and augmentation."""

    epochs: int | None = Field(default=None, ge=1)
    """Length of the run in epochs. Exactly one of `epochs` and `steps` is given."""

    steps: int | None = Field(default=None, ge=1)
    """Length of the run in optimizer steps."""

    engine: EngineSettings = EngineSettings()
    """Devices, precision, checkpoints, logging."""

    @model_validator(mode="after")
    def _one_length(self) -> Configuration:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give exactly one of epochs and steps, got epochs={self.epochs} and steps={self.steps}; "
                "set the other to null"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return every resolved value as plain data, as `config.yaml` holds it."""
        return self.model_dump(mode="json")


def read_values(
    recipe: str | Path, overrides: Sequence[str], *, kind: str, root: type[Configuration]
) -> dict[str, Any]:
    """Read a recipe of a kind and lay dotted overrides over it, unvalidated.

    Args:
        recipe: Name of a recipe of the package, or path of a YAML file (a saved `config.yaml` too).
        overrides: `section.key=value`, as on the command line; see `training.overrides`. `~section.key` takes a key of
            the recipe out, as in Hydra: the other method that a run names may not know it.
        kind: Kind of the recipe, such as `pretrain`.
        root: What the values will become.

    Raises:
        ConfigError: The overrides cannot be read.
        ValueError: There is no such recipe.
    """
    return overridden(read_recipe(recipe, kind=kind), overrides, root)


def validate(section: type[S], values: Mapping[str, Any], complaint: str = "the configuration cannot be run") -> S:
    """Make settings of plain data.

    Raises:
        ConfigError: An unknown or mistyped key, a wrong type or an impossible number; all of them are listed.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        found = "\n".join(f"  {_explain(detail, values, section)}" for detail in error.errors())
        raise ConfigError(f"{complaint}:\n{found}") from None


def completed(parse: Callable[[Mapping[str, Any]], Configuration]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return what gives saved values the keys that came after them; values that are none any more stay as they are."""

    def complete(values: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return parse(values).to_dict()
        except ValueError:
            return values

    return complete


def lengthened(old: Configuration, new: Configuration) -> str | None:
    """Say how a run that goes on becomes longer, or return None where its length stays.

    Raises:
        ConfigError: It would become shorter, or its length is counted in something else.
    """
    for key in LENGTH:
        before, now = getattr(old, key), getattr(new, key)
        if before == now:
            continue
        if before is None or now is None:
            counted = "epochs" if old.steps is None else "steps"
            raise ConfigError(f"the length of the run is counted in {counted}; make it longer with {counted}=N")
        if now < before:
            raise ConfigError(f"the run is {before} {key} long; it can go on for longer, not stop at {key}={now}")
        return (
            f"{key}: {before} -> {now}. Schedules end at the new length from here on: the weights become those of "
            f"a run of {before} {key} that went on, not those of one that was of {now} from the start"
        )
    return None


def parse_settings(section: type[S], assignments: Sequence[str], *, over: Mapping[str, Any] | None = None) -> S:
    """Make one section of settings from `key=value` strings, read as overrides are.

    Args:
        section: What is made.
        assignments: With dots for what lies deeper.
        over: What they are laid over; default: nothing, and so the section's own defaults.

    Raises:
        ConfigError: An unknown key, a wrong type or an impossible number; all of them are listed.
    """
    return validate(section, overridden(over or {}, assignments, section), "these settings do not work")


def did_you_mean(key: str, known: Sequence[str], *, prefix: Sequence[str] = ()) -> str:
    """Return the end of an error about an unknown key: close ones, or all that there are."""
    close = difflib.get_close_matches(key, known, n=2)
    if close:
        return "; did you mean " + " or ".join(repr(".".join([*prefix, name])) for name in close) + "?"
    return f"; there are: {', '.join(known)}"


def _explain(detail: Mapping[str, Any], values: Any, root: type[Settings]) -> str:
    """Say where in the configuration something is wrong, what is there, and what was meant or wanted."""
    path = [str(part) for part in detail["loc"]]
    where, message = ".".join(path), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = list(section_at(root, path[:-1], values).model_fields)
        return f"unknown key {where!r}{did_you_mean(path[-1], known, prefix=path[:-1])}"
    if detail["type"] == "missing":
        return f"{where}: missing; {message}"
    if not where or isinstance(detail["input"], Mapping):
        return f"{where}: {message}" if where else message
    remedy = "; text that looks like one needs quotes in YAML" if _is_a_number_for_text(detail) else ""
    return f"{where}: {message}, got {detail['input']!r}{remedy}"


def _is_a_number_for_text(detail: Mapping[str, Any]) -> bool:
    return detail["type"] in ("string_type", "path_type") and isinstance(detail["input"], bool | int | float)


__all__ = [
    "LENGTH",
    "ConfigError",
    "Configuration",
    "did_you_mean",
    "lengthened",
    "parse_settings",
    "read_values",
    "validate",
]
