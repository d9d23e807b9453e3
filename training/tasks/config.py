"""The typed configuration of a finetuning run, for flow and for segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from midway_hub.training.configuration import Configuration, read_values, validate
from midway_hub.training.settings import Settings
from midway_hub.training.tasks.flow import FlowSettings
from midway_hub.training.tasks.flow_data import FlowData
from midway_hub.training.tasks.segmentation import SegmentationSettings
from midway_hub.training.tasks.segmentation_data import SegmentationData
from midway_hub.training.tasks.start import StartSettings


class EvaluationSettings(Settings):
    """Measurements while training, on data that training never sees."""

    lowest: ClassVar[dict[str, bool]] = {}
    """The numbers that are measured, and of each whether the lowest is best."""

    every_steps: int = Field(default=0, ge=0)
    """Optimizer steps between two measurements; 0: none."""

    dataset: str | tuple[str, ...] = "world"
    """Name of a data set, such as `sintel/subval/clean`; `world`: held-out synthetic worlds of the training's kind. Of
    several each number is measured on each, and its mean."""

    root: Path | None = None
    """Folder of the data set."""

    limit: int = Field(default=64, ge=1)
    """Pairs or pictures, the first of each data set."""

    keep_best: str | None = None
    """Number by which the best weights so far are kept beside the last ones, such as `flow/epe`, in every checkpoint;
    they are what the run exports. Null: the last weights alone."""

    @model_validator(mode="after")
    def _best_is_measured(self) -> EvaluationSettings:
        if self.keep_best is not None and self.keep_best not in self.lowest:
            raise ValueError(f"keep_best={self.keep_best!r} is not measured; there are: {', '.join(self.lowest)}")
        if self.keep_best is not None and not self.every_steps:
            raise ValueError(f"keep_best={self.keep_best!r} needs measurements: give every_steps, such as an epoch's")
        if not self.dataset:
            raise ValueError("dataset names no data set; `world` stands for held-out worlds")
        return self

    def names(self) -> tuple[str, ...]:
        """Return the data sets' names."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    def measured_on(self) -> dict[str, Any]:
        """Return what decides the numbers."""
        return self.model_dump(mode="json", exclude={"every_steps", "root", "keep_best"}) | {"dataset": [*self.names()]}


class FlowEvaluation(EvaluationSettings):
    """Measurements of flow while training."""

    lowest: ClassVar[dict[str, bool]] = dict.fromkeys(
        ("flow/epe", "flow/bad_1", "flow/fl_all", "flow/epe_over_zero"), True
    )

    overlap: float | None = Field(default=None, ge=0, lt=1)
    """Estimate in tiles of the training crop that overlap by this share, such as CroCo v2's 0.7; null: as the head's
    configuration says."""


class SegmentationEvaluation(EvaluationSettings):
    """Measurements of segmentation while training."""

    lowest: ClassVar[dict[str, bool]] = dict.fromkeys(
        ("segmentation/miou", "segmentation/accuracy", "segmentation/class_accuracy"), False
    )


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

    evaluation: FlowEvaluation = FlowEvaluation()
    """Measurements while training."""


class SegmentationConfig(TaskConfig):
    """Everything that decides what a segmentation run does."""

    kind: Literal["segmentation"] = "segmentation"
    task: SegmentationSettings = SegmentationSettings()
    """Head, loss and optimisation."""

    data: SegmentationData = SegmentationData()
    """Labelled pictures."""

    evaluation: SegmentationEvaluation = SegmentationEvaluation()
    """Measurements while training."""


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
