"""The command that measures motion read off a network without any head: evaluate dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Dtype
from midway_hub.training.commands._common import Json, Options, command
from midway_hub.training.commands._evaluating import (
    WORLDS_HELP,
    Limit,
    Out,
    Pictures,
    Root,
    Worlds,
    WorldSize,
    open_flow_data,
    open_network,
    show,
)

if TYPE_CHECKING:
    from midway_hub.training.evaluation.dynamics.readings import Reader

app = typer.Typer()

GATES = {"on": True, "off": False}


@command(app)
def dynamics(
    dataset: Annotated[str, typer.Option(help="Such as sintel/subval/clean, kitti2015/train, " + WORLDS_HELP)],
    model: Annotated[
        list[str], typer.Option("--model", "-m", help="Checkpoint: name, repo, folder or file; any number.")
    ],
    root: Root = None,
    draws: Annotated[int, typer.Option(help="Random directions per patch.")] = 8,
    gates: Annotated[
        str, typer.Option(help="With gating units (on), with every gate at 1 (off), or on,off.")
    ] = "on,off",
    short_side: Annotated[
        int | None, typer.Option(help="Read frames of this short side; errors stay in the frames' own pixels.")
    ] = None,
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    worlds: Worlds = 64,
    world_size: WorldSize = None,
    device: Device = None,
    dtype: Dtype = "float32",
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Measure the motion that dynamics hold: perturbation peaks per level against features, and against no motion.

    EPE and hit rates (at most 0.5, 1, 2 patches off) at the centres of patches that are seen in both frames. No flow
    head is needed. An interrupted evaluation goes on with --out.

    Examples: evaluate dynamics --dataset world -m runs/midway/export

    evaluate dynamics --dataset world:runs/midway/config.yaml -m runs/midway/export

    evaluate dynamics --dataset kitti2015/train --root /data/kitti -m midway_vits_bdd100k --short-side 224 -o results/dy
    """
    from midway_hub.training.evaluation.dynamics.evaluate import evaluate_dynamics
    from midway_hub.training.evaluation.dynamics.tables import dynamics_tables

    data = open_flow_data(dataset, root, worlds, world_size, options)
    readers = _readers(model, gates, draws=draws, device=device, dtype=dtype)
    with console.step_bars() as bars:
        result = evaluate_dynamics(
            data, readers, short_side=short_side, out=out, limit=limit, pictures=pictures, progress=bars
        )
    show(result, dynamics_tables(result), out=out, as_json=as_json)


def _readers(models: list[str], gates: str, *, draws: int, device: str | None, dtype: str) -> list[Reader]:
    """Per network: its dynamics with and without gates, then its features; and last the world that stands still."""
    from midway_hub.training.evaluation.dynamics.readings import Matching, Perturbation, StandStill

    wanted = [word.strip() for word in gates.split(",") if word.strip()]
    if not wanted or set(wanted) - set(GATES):
        raise ValueError(f"--gates must be on, off, or on,off; got {gates!r}")
    if draws < 1:
        raise ValueError(f"--draws must be at least 1, got {draws}")
    readers: list[Reader] = []
    patch_size = 16
    for name in models:
        network = open_network(name, device=device, dtype=dtype)
        patch_size = network.config.patch_size
        if not network.config.dynamics:
            console.warning(f"{name} is an encoder alone; only its features are matched")
        elif not network.config.gating:
            console.warning(f"{name} has no gating units; it is measured as it is")
            readers.append(Perturbation(network, gates=False, draws=draws, model=name))
        else:
            readers += [Perturbation(network, gates=GATES[word], draws=draws, model=name) for word in wanted]
        readers.append(Matching(network, model=name))
    return [*readers, StandStill(patch_size)]
