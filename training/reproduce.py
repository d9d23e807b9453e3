"""A chain of runs that makes one checkpoint: pretraining, then heads, each stage from the one before it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from midway_hub.training.configuration import validate
from midway_hub.training.engine.loop import Outcome
from midway_hub.training.export import export_run
from midway_hub.training.export.joining import join_heads
from midway_hub.training.kinds import KINDS, kind
from midway_hub.training.recipes import list_recipes, read_recipe
from midway_hub.training.settings import Settings

_log = logging.getLogger("midway_hub")

FINAL = "export"


class Stage(Settings):
    """One run of a chain."""

    name: str
    """What its folder is called."""

    kind: str
    """`pretrain`, `flow` or `segmentation`."""

    recipe: str
    """Name of the recipe."""

    start: str | None = None
    """The stage whose weights it starts from; of the first: none."""

    scales: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Overrides by scale, such as `cpu`."""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(f"stages are of kind {', '.join(KINDS)}, got {value!r}")
        return value


class Chain(Settings):
    """What makes one checkpoint."""

    recipe: str
    description: str = ""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In the order in which they run; the last one's network is the checkpoint."""

    join: tuple[str, ...] = ()
    """Stages whose heads the checkpoint has as well: what they were trained on is what the last one's was, frozen."""

    dtype: str = "float16"
    """Precision of the checkpoint."""

    licence: str | None = None
    """SPDX name of the weights' licence."""

    @model_validator(mode="after")
    def _starts_are_there(self) -> Chain:
        before: list[str] = []
        for stage in self.stages:
            if stage.name in before or stage.name == FINAL:
                raise ValueError(f"two parts of the chain are called {stage.name!r}")
            if stage.start is not None and stage.start not in before:
                raise ValueError(f"stage {stage.name} starts from {stage.start!r}, before it are {before or 'none'}")
            before.append(stage.name)
        unknown = [name for name in self.join if name not in before[:-1]]
        if unknown:
            raise ValueError(f"join names {', '.join(unknown)}; before the last stage are {before[:-1] or 'none'}")
        return self

    def scales(self) -> list[str]:
        """Return the names of the scales that the chain has, besides the full one."""
        return sorted({scale for stage in self.stages for scale in stage.scales})


def read_chain(name: str) -> Chain:
    """Read a chain by its name, or from a YAML file.

    Raises:
        ConfigError: It is not well made.
        ValueError: There is none of that name.
    """
    return validate(Chain, read_recipe(name, kind="chain"), "the chain cannot be run")


def list_chains() -> dict[str, str]:
    """Return the chains' names and what they make."""
    return {name: " ".join(read_chain(name).description.split()) for name in list_recipes("chain")}


def reproduce(
    chain: Chain,
    out: Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[Stage, str], None] = lambda stage, state: None,
) -> Path | None:
    """Carry out a chain: what is finished is kept, what was interrupted goes on.

    Args:
        chain: What to run.
        out: Folder; every stage has one in it, and `export` is the checkpoint.
        scale: Which of the chain's reductions to run; default: the full chain.
        overrides: `section.key=value` for every stage, such as `engine.devices=2`.
        progress: Called with a stage and `kept`, `started`, `finished` or `interrupted`.

    Returns:
        The checkpoint's folder; None where a stage was interrupted, or in every process but the first.

    Raises:
        ValueError: There is no such scale.
        ExportError: The checkpoint does not pass its checks.
    """
    if scale is not None and scale not in chain.scales():
        raise ValueError(
            f"there is no scale {scale!r}; there are: {', '.join(chain.scales()) or 'none but the full one'}"
        )
    for stage in chain.stages:
        outcome = _run(stage, out, scale, overrides, progress)
        if outcome is not None and outcome.state != "finished":
            return None
    if (out / FINAL).exists():
        return out / FINAL
    last = chain.stages[-1]
    run = kind(last.kind)
    command = f"python -m midway_hub.training reproduce {chain.recipe}" + (f" --scale {scale}" if scale else "")
    return export_run(
        out / last.name,
        out / FINAL,
        build=lambda values: run.rebuild(values, out / last.name),
        dtype=chain.dtype,  # type: ignore[arg-type]
        licence=chain.licence,
        name=Path(chain.recipe).stem,
        command=command,
        finish=lambda network: reduce(join_heads, (out / name / "export" for name in chain.join), network),
    )


def _run(
    stage: Stage, out: Path, scale: str | None, overrides: Sequence[str], progress: Callable[[Stage, str], None]
) -> Outcome | None:
    run_dir = out / stage.name
    if (run_dir / "export").is_dir():
        progress(stage, "kept")
        return None
    chosen: list[str] = [*stage.scales.get(scale or "", ()), *overrides]
    if stage.start is not None:
        chosen.append(f"start.weights={out / stage.start / 'export'}")
    run = kind(stage.kind)
    progress(stage, "started")
    outcome = run.run(run.load(stage.recipe, chosen), run_dir)
    if outcome is not None:
        progress(stage, outcome.state)
    return outcome
