"""The typed configuration of a pretraining run: sections that the rooms define, a recipe, dotted overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midway_hub.training.compat import Compat
from midway_hub.training.configuration import (
    ConfigError,
    Configuration,
    did_you_mean,
    parse_settings,
    read_values,
    validate,
)
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.data.views import ViewSettings
from midway_hub.training.methods import METHODS
from midway_hub.training.methods.base import MethodSettings
from midway_hub.training.probes.settings import ProbeSettings
from midway_hub.training.settings import Settings
from pydantic import Field, SerializeAsAny, field_validator

from midway_hub.config import MidwayConfig

NOT_ARCHITECTURE = ("dynamics", "drop_path_rate", "target_network", "flow_head", "segmentation_head")
"""Keywords of `MidwayConfig` that a run decides elsewhere."""


class RunConfig(Configuration):
    """Everything that decides what a pretraining run does. An epoch is a pass over the pairs."""

    method: SerializeAsAny[MethodSettings]
    """Pretraining method: `name` and its own numbers."""

    model: dict[str, Any] = Field(default_factory=dict)
    """Architecture: keyword arguments of `MidwayConfig`."""

    data: DataSettings = DataSettings()
    """Where frame pairs come from."""

    views: ViewSettings = ViewSettings()
    """Crops and colour augmentation."""

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
        check_architecture(value)
        return value

    @classmethod
    def variant(cls, section: str, values: Mapping[str, Any]) -> type[Settings] | None:
        """Return the settings of the method that the values name."""
        return METHODS[values["method"]["name"]].settings if section == "method" else None


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a pretraining recipe and lay dotted overrides over it.

    Args:
        recipe: Name of a recipe of the package, or path of a YAML file (a saved `config.yaml` too).
        overrides: `section.key=value`, as on the command line; values are YAML.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: An unknown or mistyped key, a wrong type or an impossible number; all of them are listed.
        ValueError: There is no such recipe.
    """
    return parse_config(read_values(recipe, overrides, kind="pretrain"))


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate plain data as a configuration; see `load_config`."""
    return validate(RunConfig, values)


def check_architecture(keywords: Mapping[str, Any]) -> None:
    """Refuse keywords that `MidwayConfig` does not take, or that do not work together.

    Raises:
        ValueError: The message names the keyword, and what was meant.
    """
    known = [name for name in MidwayConfig.__init__.__kwdefaults__ or {} if name not in NOT_ARCHITECTURE]
    for key in keywords:
        if key not in known:
            raise ValueError(f"unknown key 'model.{key}'{did_you_mean(key, known)}")
    MidwayConfig(**keywords)


__all__ = ["ConfigError", "RunConfig", "check_architecture", "load_config", "parse_config", "parse_settings"]
