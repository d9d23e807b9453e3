"""The kinds of runs and what each does: pretraining, flow, segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from midway_hub.training.engine.run_directory import read_config
from midway_hub.training.recipes import kind_of

if TYPE_CHECKING:
    from midway_hub.training.configuration import Configuration
    from midway_hub.training.engine.loop import Outcome
    from midway_hub.training.engine.protocol import Trainable
    from midway_hub.training.plan import Plan
    from midway_hub.training.settings import Settings

TASKS = ("flow", "segmentation")
KINDS = ("pretrain", *TASKS)


class Kind(Protocol):
    """One kind of run; what it needs is imported when it is used."""

    def load(self, recipe: str | Path, overrides: Sequence[str]) -> Configuration:
        """Read a recipe, or a saved `config.yaml`."""
        ...

    def run(self, config: Any, run_dir: Path, *, longer: bool = False) -> Outcome | None:
        """Carry it out, from the start or from the last whole checkpoint; `longer`: of a shorter run, too."""
        ...

    def forecast(self, config: Any) -> Plan:
        """Work out every derived number, without starting."""
        ...

    def rebuild(self, values: dict[str, Any], run_dir: Path) -> Trainable:
        """Make what the run trains, for weights to be loaded into."""
        ...


class Pretraining:
    """Runs of `training.pretraining`."""

    def load(self, recipe: str | Path, overrides: Sequence[str]) -> Configuration:
        from midway_hub.training.config import load_config

        return load_config(recipe, overrides)

    def run(self, config: Any, run_dir: Path, *, longer: bool = False) -> Outcome | None:
        from midway_hub.training.pretraining import pretrain

        return pretrain(config, run_dir, longer=longer)

    def forecast(self, config: Any) -> Plan:
        from midway_hub.training.pretraining import forecast

        return forecast(config)

    def rebuild(self, values: dict[str, Any], run_dir: Path) -> Trainable:
        from midway_hub.training.pretraining import rebuild

        return rebuild(values)


class Finetuning:
    """Runs of `training.tasks`.

    Args:
        task: `flow` or `segmentation`.
    """

    def __init__(self, task: str) -> None:
        self.task = task

    def load(self, recipe: str | Path, overrides: Sequence[str]) -> Configuration:
        from midway_hub.training.tasks.config import load_task_config

        return load_task_config(self.task, recipe, overrides)

    def run(self, config: Any, run_dir: Path, *, longer: bool = False) -> Outcome | None:
        from midway_hub.training.tasks.running import finetune

        return finetune(config, run_dir, longer=longer)

    def forecast(self, config: Any) -> Plan:
        from midway_hub.training.tasks.running import forecast

        return forecast(config)

    def rebuild(self, values: dict[str, Any], run_dir: Path) -> Trainable:
        from midway_hub.training.tasks.running import rebuild

        return rebuild(values, run_dir)


def kind(name: str) -> Kind:
    """Return the kind of runs of a name.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in KINDS:
        raise ValueError(f"there are no runs of kind {name!r}; kinds: {', '.join(KINDS)}")
    return Pretraining() if name == "pretrain" else Finetuning(name)


def settings_of(name: str) -> type[Settings]:
    """Return what recipes of a kind become; of kinds that do not train, too."""
    if name == "init":
        from midway_hub.training.initialise import InitConfig

        return InitConfig
    if name == "chain":
        from midway_hub.training.reproduce import Chain

        return Chain
    if name == "pretrain":
        from midway_hub.training.config import RunConfig

        return RunConfig
    from midway_hub.training.tasks.config import CONFIGS

    kind(name)
    return CONFIGS[name]


def kind_of_recipe(recipe: str) -> str:
    """Return the kind that a recipe is of.

    Raises:
        ValueError: There is no such recipe, or its kind is none that runs.
    """
    name = kind_of(recipe)
    kind(name)
    return name


def kind_of_run(run_dir: str | Path) -> str:
    """Return the kind of a run by its directory.

    Raises:
        FileNotFoundError: The directory is none of a run.
    """
    config = Path(run_dir) / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{run_dir} is not the directory of a run: it has no config.yaml")
    return str(read_config(config).get("kind", "pretrain"))
