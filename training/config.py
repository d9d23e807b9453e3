"""The typed configuration of a pretraining run: sections that the rooms define, a recipe, dotted overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator

from midway_hub.config import MidwayConfig
from midway_hub.models.convolutional import ConvConfig
from midway_hub.training.compat import Oddities
from midway_hub.training.configuration import (
    ConfigError,
    Configuration,
    parse_settings,
    read_values,
    validate,
)
from midway_hub.training.data.needs import Needs, Views
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.fields import KeywordsOf
from midway_hub.training.methods import METHODS, Method, MethodSettings, method_class
from midway_hub.training.probes.settings import ProbeSettings
from midway_hub.training.settings import Settings

_DECIDED = {
    "dynamics": "the method, or start.dynamics, says whether there are any",
    "drop_path_rate": "the method's own, or start.drop_path",
    "target_network": "the method says which encoders there are",
    "pair_decoder": "method croco makes it of method.decoder",
    "flow_head": "a run of kind flow makes it of task.head",
    "segmentation_head": "a run of kind segmentation makes it of task.head",
}

Architecture = Annotated[dict[str, Any], KeywordsOf(MidwayConfig, "model", without=_DECIDED)]
"""Keyword arguments of `MidwayConfig`, but for what a run decides elsewhere."""


MethodArchitecture = Annotated[
    dict[str, Any],
    KeywordsOf((MidwayConfig, ConvConfig), "model", without=_DECIDED, check=lambda **keywords: None),
]
"""The same, or keyword arguments of `ConvConfig`; the method checks them."""


class RunConfig(Configuration):
    """Everything that decides what a pretraining run does. An epoch is a pass over the pairs."""

    method: SerializeAsAny[MethodSettings]
    """Pretraining method: `name` and its own numbers."""

    model: MethodArchitecture = Field(default_factory=dict)
    """Architecture: keyword arguments of `MidwayConfig`; for methods that take a convolutional encoder instead, `timm`,
    its name there, and `output_stride`."""

    data: DataSettings = DataSettings()
    """Where frame pairs come from."""

    views: SerializeAsAny[Views] = Field(default_factory=dict, validate_default=True)  # type: ignore[arg-type]
    """Crops and colour augmentation, as the method takes them."""

    probes: ProbeSettings = ProbeSettings()
    """Measurements while training."""

    compat: SerializeAsAny[Oddities] = Field(default_factory=dict, validate_default=True)  # type: ignore[arg-type]
    """The oddities of the method's released code."""

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
    def _suits_the_method(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        method = info.data.get("method")
        if method is not None:
            METHODS[method.name].check_architecture(value)
        return value

    @field_validator("views", "compat", mode="before")
    @classmethod
    def _section_of_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        method = info.data.get("method")
        if method is None or not isinstance(value, Mapping):  # the method's own error is enough
            return value
        chosen = METHODS[method.name]
        return (chosen.views if info.field_name == "views" else chosen.oddities)(**value)

    @property
    def method_class(self) -> type[Method]:
        """The method that is run."""
        return method_class(self.method.name)

    @property
    def needs(self) -> Needs:
        """What the method asks of the data."""
        return self.views.needs()

    @classmethod
    def variant(cls, section: str, values: Mapping[str, Any]) -> type[Settings] | None:
        """Return the settings that a section has with the method that the values name."""
        named = values.get("method")
        name = named.get("name") if isinstance(named, Mapping) else None
        if name not in METHODS or section not in ("method", "views", "compat"):
            return None
        method = METHODS[name]
        return {"method": method.settings, "views": method.views, "compat": method.oddities}[section]


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a pretraining recipe and lay dotted overrides over it.

    Args:
        recipe: Name of a recipe of the package, or path of a YAML file (a saved `config.yaml` too).
        overrides: `section.key=value`, as on the command line; see `training.overrides`.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: An unknown or mistyped key, a wrong type or an impossible number; all of them are listed.
        ValueError: There is no such recipe.
    """
    return parse_config(read_values(recipe, overrides, kind="pretrain", root=RunConfig))


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate plain data as a configuration; see `load_config`."""
    return validate(RunConfig, values)


__all__ = ["Architecture", "ConfigError", "RunConfig", "load_config", "parse_config", "parse_settings"]
