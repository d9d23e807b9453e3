"""The configuration of a pretraining run: a recipe, dotted overrides, and errors that say what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from midway_hub.training.compat import Compat
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.data.views import ViewSettings
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.methods import METHODS
from midway_hub.training.methods.base import MethodSettings
from midway_hub.training.probes.settings import ProbeSettings
from midway_hub.training.recipes import read_recipe
from midway_hub.training.settings import Settings
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from midway_hub.config import MidwayConfig

S = TypeVar("S", bound=Settings)


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names every key, what it holds and what it should."""


class RunConfig(Settings):
    """Everything that decides what a pretraining run does."""

    recipe: str
    """Where the configuration came from: a recipe's name or a file."""

    description: str = ""
    """One line on what the run is for."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, sampling and augmentation."""

    epochs: int | None = Field(default=None, ge=1)
    """Length of the run in epochs (passes over pairs). Exactly one of `epochs` and `steps` is given."""

    steps: int | None = Field(default=None, ge=1)
    """Length of the run in optimizer steps."""

    method: SerializeAsAny[MethodSettings]
    """Pretraining method: `name` and its own numbers."""

    model: dict[str, Any] = Field(default_factory=dict)
    """Architecture: keyword arguments of `MidwayConfig`."""

    data: DataSettings = DataSettings()
    """Where frame pairs come from."""

    views: ViewSettings = ViewSettings()
    """Crops and colour augmentation."""

    engine: EngineSettings = EngineSettings()
    """Devices, precision, checkpoints, logging."""

    probes: ProbeSettings = ProbeSettings()
    """Measurements while training."""

    compat: Compat = Compat()
    """The released recipe's oddities."""

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value.get("name")
        if name not in METHODS:
            raise ValueError(f"method.name is {name!r}; there are: {', '.join(sorted(METHODS))}")
        return METHODS[name].settings(**value)

    @field_validator("model")
    @classmethod
    def _model_is_an_architecture(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = _architecture_keys()
        for key in value:
            if key not in known:
                raise ValueError(f"unknown key 'model.{key}'{_meant(key, known)}")
        MidwayConfig(**value)
        return value

    @model_validator(mode="after")
    def _one_length(self) -> RunConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give exactly one of epochs and steps, got epochs={self.epochs} and steps={self.steps}; "
                "set the other to null"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return every resolved value as plain data, as `config.yaml` holds it."""
        return self.model_dump(mode="json")


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe and lay dotted overrides over it.

    Args:
        recipe: Name of a recipe of the package, or path of a YAML file (a saved `config.yaml` too).
        overrides: `section.key=value`, as on the command line; values are YAML.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: An unknown or mistyped key, a wrong type or an impossible number; all of them are listed.
        ValueError: There is no such recipe.
    """
    merged = OmegaConf.merge(OmegaConf.create(read_recipe(recipe)), _parse_overrides(overrides))
    return parse_config(cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True)))


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate plain data as a configuration; see `load_config`."""
    return _validate(RunConfig, values, "the configuration cannot be run")


def parse_settings(section: type[S], assignments: Sequence[str]) -> S:
    """Make one section of settings from `key=value` strings; values are YAML.

    Raises:
        ConfigError: An unknown key, a wrong type or an impossible number; all of them are listed.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(_parse_overrides(assignments)))
    return _validate(section, values, "these settings do not work")


def _validate(section: type[S], values: Mapping[str, Any], complaint: str) -> S:
    try:
        return section(**values)
    except ValidationError as error:
        found = "\n".join(f"  {_explain(detail, values, section)}" for detail in error.errors())
        raise ConfigError(f"{complaint}:\n{found}") from None


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override.lstrip("="):
            raise ConfigError(f"{override!r} is not an override; write section.key=value, e.g. engine.precision=bf16")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read the overrides {list(overrides)}: {error}") from error


def _explain(detail: Mapping[str, Any], values: Any, root: type[BaseModel]) -> str:
    """Say where in the configuration something is wrong, what is there, and what was meant or wanted."""
    path = [str(part) for part in detail["loc"]]
    where, message = ".".join(path), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = list(_section(path[:-1], values, root).model_fields)
        return f"unknown key {where!r}{_meant(path[-1], known, prefix=path[:-1])}"
    if detail["type"] == "missing":
        return f"{where}: missing; {message}"
    if not where or isinstance(detail["input"], Mapping):
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {detail['input']!r}"


def _section(path: Sequence[str], values: Any, root: type[BaseModel]) -> type[BaseModel]:
    """Return the settings class that lies at `path` below `root`."""
    section = root
    for depth, name in enumerate(path):
        if section is RunConfig and name == "method" and depth == 0:
            section = METHODS[values["method"]["name"]].settings
            continue
        annotation = section.model_fields[name].annotation if name in section.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        found = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not found:
            return section
        section = found[0]
    return section


def _architecture_keys() -> list[str]:
    names = MidwayConfig.__init__.__kwdefaults__ or {}
    return [name for name in names if name not in ("dynamics", "drop_path_rate", "target_network")]


def _meant(key: str, known: Sequence[str], *, prefix: Sequence[str] = ()) -> str:
    close = difflib.get_close_matches(key, known, n=2)
    if close:
        return "; did you mean " + " or ".join(repr(".".join([*prefix, name])) for name in close) + "?"
    return f"; there are: {', '.join(known)}"
