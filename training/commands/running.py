"""Commands that train: pretrain, flow, segmentation, resume, recipes, trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midway_hub import _console as console
from midway_hub.training.commands._common import Json, Overrides, Recipe, RunDir, command

if TYPE_CHECKING:
    from midway_hub.training.configuration import Configuration
    from midway_hub.training.plan import Plan

app = typer.Typer()


DryRun = Annotated[bool, typer.Option("--dry-run", help="Print every derived number, and do nothing.")]
NewRunDir = Annotated[Path | None, typer.Option(help="Where everything is written; default: runs/RECIPE.")]


@command(app, panel="Train")
def recipes(
    show: Annotated[
        str | None,
        typer.Option(help="Print this recipe (a name or a file) instead: every key, its value and what it means."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes for pretraining, flow and segmentation.

    Example: recipes --show smoke > mine.yaml
    """
    from midway_hub.training.kinds import KINDS, settings_of
    from midway_hub.training.recipes import kind_of, list_recipes, read_recipe

    if show is not None:
        from midway_hub.training.recipes.shown import shown
        from midway_hub.training.yaml_text import parse_yaml

        kind_name = kind_of(show)
        text = shown(settings_of(kind_name), read_recipe(show, kind=kind_name))
        text = text if "\nkind: " in text else f"kind: {kind_name}\n{text}"
        if as_json:
            console.print_json(parse_yaml(text, show))
        else:
            console.say(text.rstrip())
        return
    found = [(kind, name) for kind in KINDS for name in list_recipes(kind)]
    rows = [(name, kind, " ".join(read_recipe(name, kind=kind).get("description", "").split())) for kind, name in found]
    if as_json:
        console.print_json({name: {"kind": kind, "description": text} for name, kind, text in rows})
    else:
        console.table("recipes", ["recipe", "for", "what it is"], rows)


@command(app, panel="Train")
def pretrain(
    recipe: Recipe,
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Pretrain by a recipe, from the start or from where the run directory's last checkpoint is.

    Several GPUs: engine.devices=N, torchrun, or `submit` for Slurm. SIGTERM saves, and exits with 75.

    Examples: pretrain smoke --run-dir runs/smoke; pretrain paper/bdd_vits data.path=/data/bdd100k/videos/train
    --dry-run
    """
    _start("pretrain", recipe, overrides, run_dir, dry_run=dry_run, as_json=as_json)


@command(app, panel="Train")
def flow(
    recipe: Recipe,
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Finetune a network for optical flow by a recipe, from the start or from the last checkpoint.

    start.weights says what it starts from: a registry name, a Hub repo, or the export of a pretraining run.
    start.freeze=true trains the head alone, start.dynamics=reinitialised keeps the encoder only.

    Examples: flow flow_synthetic_small start.weights=runs/synthetic_small/export

    flow paper/flow_vits data.roots.sintel=/data/sintel data.roots.things=/data/FlyingThings
    data.roots.chairs=/data/FlyingChairs data.roots.tartanair=/data/tartanair --dry-run
    """
    _start("flow", recipe, overrides, run_dir, dry_run=dry_run, as_json=as_json)


@command(app, panel="Train")
def segmentation(
    recipe: Recipe,
    overrides: Overrides = None,
    run_dir: NewRunDir = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a segmentation head by a recipe, on frozen features or with the whole network.

    Examples: segmentation segmentation_synthetic_small start.weights=runs/synthetic_small/export

    segmentation paper/segmentation_bdd_linear_vits data.root=/data/bdd100k --dry-run
    """
    _start("segmentation", recipe, overrides, run_dir, dry_run=dry_run, as_json=as_json)


@command(app, panel="Train")
def resume(run_dir: RunDir, overrides: Overrides = None) -> None:
    """Go on with a run of any kind from its last whole checkpoint: the weights become those of a run never stopped.

    Only what does not say what is learned may be overridden, e.g. engine.log_every or data.workers; and steps=N (or
    epochs=N) makes a run longer.
    """
    from midway_hub.training.configuration import lengthened
    from midway_hub.training.kinds import kind, kind_of_run

    saved = run_dir / "config.yaml"
    if not saved.is_file():
        raise FileNotFoundError(f"{run_dir} is no run directory: it has no config.yaml; start one with `pretrain`")
    name = kind_of_run(run_dir)
    config = kind(name).load(saved, overrides or ())
    if longer := lengthened(kind(name).load(saved, ()), config):
        console.say(longer)
    _run(name, config, run_dir, longer=longer is not None)


@command(app, panel="Train")
def reproduce(
    name: Annotated[str, typer.Argument(help="What to make, e.g. midway_pico, or a chain's YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where everything goes; default: runs/NAME.")] = None,
    scale: Annotated[str | None, typer.Option(help="A reduced version, e.g. cpu for two cores.")] = None,
) -> None:
    """Make a checkpoint from nothing: pretraining, then heads, to an exported, verified network with a card.

    Stop it any time; the same command goes on where it was. Overrides hold for every stage.

    Example: reproduce midway_pico --scale cpu
    """
    from midway_hub.training import reproduce as chains

    chain = chains.read_chain(name)
    folder = out or Path("runs") / Path(name).stem

    def tell(stage: chains.Stage, state: str) -> None:
        console.say(f"{stage.name}: {state} ({stage.kind} {stage.recipe}, {folder / stage.name})")

    made = chains.reproduce(chain, folder, scale=scale, overrides=overrides or (), progress=tell)
    if made is None:
        raise typer.Exit(75)
    console.say(f"{made}: load it with MidwayNetwork.from_pretrained({str(made)!r})")


@command(app, panel="Train")
def trace(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print one step on the CPU as a reading map: shapes, losses, parameter groups, moving averages."""
    from midway_hub.training.config import load_config
    from midway_hub.training.pretraining import trace_run

    console.say(trace_run(load_config(recipe, overrides or ())))


def _start(
    name: str, recipe: str, overrides: list[str] | None, run_dir: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    from midway_hub.training.kinds import kind

    config = kind(name).load(recipe, overrides or ())
    if dry_run:
        _show_plan(kind(name).forecast(config), as_json=as_json)
        return
    _run(name, config, run_dir or Path("runs") / recipe.replace("/", "-").removesuffix(".yaml"))


def _run(name: str, config: Configuration, run_dir: Path, *, longer: bool = False) -> None:
    from midway_hub.training.kinds import kind

    outcome = kind(name).run(config, run_dir, longer=longer)
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
