"""The typed configuration of a finetuning run, for flow and for segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from midway_hub.training.configuration import Configuration, read_values, validate
from midway_hub.training.settings import Settings
from midway_hub.training.tasks.flow import FlowSettings
from midway_hub.training.tasks.flow_data import FlowData
from midway_hub.training.tasks.segmentation import SegmentationSettings
from midway_hub.training.tasks.segmentation_data import SegmentationData
from midway_hub.training.tasks.start import StartSettings
from pydantic import Field


class EvaluationSettings(Settings):
    """Measurements while training, on data that training never sees."""

    every_steps: int = Field(default=0, ge=0)
    """Optimizer steps between two measurements; 0: none."""

    dataset: str = "world"
    """Name of a data set, such as `sintel/subval/clean`; `world`: held-out synthetic worlds of the training's kind."""

    root: Path | None = None
    """Folder of the data set."""

    limit: int = Field(default=64, ge=1)
    """Pairs or pictures, the first of the data set."""


class TaskConfig(Configuration):
    """What finetuning runs have in common. An epoch is a pass over the examples."""

    start: StartSettings = StartSettings()
    """What the weights are before, and which of them are trained."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """Measurements while training."""


class FlowConfig(TaskConfig):
    """Everything that decides what a flow finetuning run does."""

    kind: Literal["flow"] = "flow"
    task: FlowSettings = FlowSettings()
    """Head, loss and optimisation."""

    data: FlowData = FlowData()
    """Pairs with ground truth."""


class SegmentationConfig(TaskConfig):
    """Everything that decides what a segmentation run does."""

    kind: Literal["segmentation"] = "segmentation"
    task: SegmentationSettings = SegmentationSettings()
    """Head, loss and optimisation."""

    data: SegmentationData = SegmentationData()
    """Labelled pictures."""


CONFIGS: dict[str, type[FlowConfig] | type[SegmentationConfig]] = {
    "flow": FlowConfig,
    "segmentation": SegmentationConfig,
}


def load_task_config(kind: str, recipe: str | Path, overrides: Sequence[str] = ()) -> FlowConfig | SegmentationConfig:
    """Read a finetuning recipe and lay dotted overrides over it.

    Args:
        kind: `flow` or `segmentation`.
        recipe: Name of a recipe of the package, or path of a YAML file (a saved `config.yaml` too).
        overrides: `section.key=value`, as on the command line; see `training.overrides`.

    Raises:
        ConfigError: An unknown or mistyped key, a wrong type or an impossible number; all of them are listed.
        ValueError: There is no such recipe.
    """
    return validate(CONFIGS[kind], read_values(recipe, overrides, kind=kind, root=CONFIGS[kind]))


def parse_task_config(values: Mapping[str, Any]) -> FlowConfig | SegmentationConfig:
    """Validate plain data, as `config.yaml` holds it."""
    return validate(CONFIGS[values["kind"]], values)
