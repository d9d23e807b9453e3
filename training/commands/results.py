"""Commands about what a run left behind, or that hand it to others: report, export, submit, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub.training.commands._common import Overrides, Recipe, RunDir, command

app = typer.Typer()


@command(app, panel="Results")
def report(run_dir: RunDir, out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to.")] = None) -> None:
    """Write the page of a run: curves, sample crops, incidents. Works while the run is going on."""
    from midway_hub.training.report import write_report

    console.say(str(write_report(run_dir, out=out)))


@command(app, panel="Results")
def export(
    run_dir: RunDir,
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.", show_default=False)],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; default: the newest whole one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    licence: Annotated[str | None, typer.Option(help="Licence of the weights for the card, e.g. cc-by-4.0.")] = None,
    name: Annotated[str | None, typer.Option(help="What the card calls the network.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best weights kept by evaluation.keep_best.")] = False,
) -> None:
    """Write a run's weights as a folder that MidwayNetwork.from_pretrained loads, with a card of measured facts."""
    from midway_hub.training.export import DTYPES, export_run
    from midway_hub.training.kinds import kind, kind_of_run

    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    run = kind(kind_of_run(run_dir))
    written = export_run(
        run_dir,
        out,
        build=lambda values: run.rebuild(values, run_dir),
        step=step,
        dtype=dtype,  # type: ignore[arg-type]
        licence=licence,
        name=name,
        best=best,
    )
    console.say(f"{written}: load it with MidwayNetwork.from_pretrained({str(written)!r})")


@command(app, panel="Results")
def submit(
    recipe: Recipe,
    overrides: Overrides = None,
    run_dir: Annotated[Path, typer.Option(help="Where everything is written; all nodes must see it.")] = Path(
        "runs/job"
    ),
    nodes: int = 1,
    processes: Annotated[int, typer.Option(help="Training processes on every node, a GPU each.")] = 1,
    gpus: Annotated[bool, typer.Option(help="Whether every process gets a GPU.")] = True,
    cpus: Annotated[int, typer.Option(help="CPU cores of every process.")] = 8,
    hours: Annotated[float, typer.Option(help="Time of one submission; the run is saved and queued again.")] = 24.0,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    cluster: Annotated[str, typer.Option(help="slurm, or local for processes on this machine.")] = "slurm",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the sbatch script only.")] = False,
) -> None:
    """Hand a run of any kind to Slurm: saved before its time is up, queued again, going on where it was."""
    from midway_hub.training import submit as jobs
    from midway_hub.training.kinds import kind, kind_of_recipe

    name = kind_of_recipe(recipe)
    wanted = [*(overrides or ()), f"engine.devices={processes}", f"engine.nodes={nodes}"]
    kind(name).load(recipe, wanted)  # errors now, not in the queue
    resources = jobs.Resources(
        nodes=nodes,
        processes=processes,
        gpus=gpus,
        cpus=cpus,
        hours=hours,
        partition=partition,
        account=account,
        qos=qos,
    )
    if dry_run:
        console.say(jobs.sbatch_script(run_dir, resources))
        return
    arguments = (name, recipe, *wanted, "--run-dir", str(run_dir))
    job = jobs.submit(arguments, run_dir=run_dir, resources=resources, cluster=cluster)  # type: ignore[arg-type]
    console.say(f"job {job.job_id}; its output: {job.paths.stdout}")


@command(app, panel="Results")
def init(
    recipe: Annotated[
        str, typer.Argument(help="A recipe of kind init, or of kind pretrain: what its training begins with.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write config.json, model.safetensors, ... into.")],
) -> None:
    """Write the seeded, untrained checkpoint that a recipe describes."""
    from midway_hub.training.initialise import initialise

    net = initialise(recipe, out)
    count = sum(parameter.numel() for parameter in net.parameters())
    console.say(f"{out}: {count / 1e6:.2f} M parameters, {net.dtype}, untrained")
