"""Commands that train: pretrain, resume, recipes, trace, submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from midway_hub.training.commands._common import Json, Overrides, Recipe, RunDir, command

from midway_hub import _console as console

if TYPE_CHECKING:
    from midway_hub.training.plan import Plan

app = typer.Typer()


@command(app, panel="Train")
def recipes(as_json: Json = False) -> None:
    """List the recipes for pretraining."""
    from midway_hub.training.recipes import list_recipes, load_recipe

    described = {name: " ".join(load_recipe(name).get("description", "").split()) for name in list_recipes("pretrain")}
    if as_json:
        console.print_json(described)
    else:
        console.table("recipes", ["recipe", "what it is"], list(described.items()))


@command(app, panel="Train")
def pretrain(
    recipe: Recipe,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where everything is written; default: runs/RECIPE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every derived number, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Pretrain by a recipe, from the start or from where the run directory's last checkpoint is.

    Several GPUs: engine.devices=N, torchrun, or `submit` for Slurm. SIGTERM saves, and exits with 75.

    Examples: pretrain smoke --run-dir runs/smoke; pretrain paper/bdd_vits data.path=/data/bdd100k/videos/train
    --dry-run
    """
    from midway_hub.training.config import load_config

    config = load_config(recipe, overrides or ())
    if dry_run:
        from midway_hub.training.pretraining import forecast

        _show_plan(forecast(config), as_json=as_json)
        return
    _run(config, run_dir or Path("runs") / recipe.replace("/", "-").removesuffix(".yaml"))


@command(app, panel="Train")
def resume(run_dir: RunDir, overrides: Overrides = None) -> None:
    """Go on with a run from its last whole checkpoint: the weights become those of a run that never stopped.

    Only what does not say what is learned may be overridden, e.g. engine.log_every or data.workers.
    """
    from midway_hub.training.config import load_config

    saved = run_dir / "config.yaml"
    if not saved.is_file():
        raise FileNotFoundError(f"{run_dir} is no run directory: it has no config.yaml; start one with `pretrain`")
    _run(load_config(saved, overrides or ()), run_dir)


@command(app, panel="Train")
def trace(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print one step on the CPU as a reading map: shapes, losses, parameter groups, moving averages."""
    from midway_hub.training.config import load_config
    from midway_hub.training.pretraining import trace_run

    console.say(trace_run(load_config(recipe, overrides or ())))


def _run(config, run_dir: Path) -> None:
    from midway_hub.training.pretraining import pretrain as run

    outcome = run(config, run_dir)
    if outcome is None:  # not the first process
        return
    console.say(f"{outcome.state} at step {outcome.step}: {run_dir}")
    if outcome.state == "finished":
        console.say(f"  weights  {run_dir / 'export'}\n  report   {run_dir / 'report.html'}")
    else:
        console.say(f"  go on with: python -m midway_hub.training resume {run_dir}")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        console.print_json({derived.name: derived.value for derived in plan.derived})
        return
    console.table("the run", ["number", "value", "because"], [(d.name, _text(d.value), d.reason) for d in plan.derived])


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
