"""What training is worth to the bundled network: the same heads from its weights and from an untrained network.

    python -m midway_hub.training reproduce midway_pico --scale cpu --out runs/pico
    python benchmarks/pretraining_matters.py --chain runs/pico --scale cpu --steps 1000 --seeds 0 1 2

Flow: the chain's first flow stage, for equal steps and from every seed (of the data's order, the head and the untrained
network), from the chain's pretraining and from an untrained network of the same architecture and first weights.
Classes: one linear layer on all blocks of an untrained encoder, and the chain's head on it, beside the chain's own. All
are measured on held-out worlds. Runs that are there are kept, so a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from seeded_runs import FIRST, folder, seed_table, train_all, train_once

from midway_hub import MidwayNetwork
from midway_hub.training.config import load_config
from midway_hub.training.data.flow import WorldFlow
from midway_hub.training.data.segmentation import WorldSegmentation
from midway_hub.training.data.synthetic import held_out_seeds
from midway_hub.training.evaluation.probes import flow_probe, segmentation_probe
from midway_hub.training.reproduce import Stage, read_chain
from midway_hub.training.tasks.config import load_task_config


class Run(NamedTuple):
    kind: str
    """Of the chain's stage that is run."""

    pretrained: bool
    """Whether it starts from the chain's pretraining."""

    linear: bool = False
    """Whether the head is one linear layer instead of the chain's own."""


RUNS = {
    "flow, pretrained": Run("flow", pretrained=True),
    "flow, untrained": Run("flow", pretrained=False),
    "classes, untrained encoder, linear": Run("segmentation", pretrained=False, linear=True),
    "classes, untrained encoder": Run("segmentation", pretrained=False),
}


def stage(kind: str, arguments: argparse.Namespace) -> Stage:
    """Return the chain's first stage of a kind."""
    return next(stage for stage in read_chain(arguments.name).stages if stage.kind == kind)


def start(pretrained: bool, arguments: argparse.Namespace) -> list[str]:
    """Return the overrides that say what a run starts from."""
    folder = arguments.chain / stage("pretrain", arguments).name
    if pretrained:
        return [f"start.weights={folder / 'export'}"]
    config = load_config(folder / "config.yaml")
    return [f"start.model={json.dumps(config.model)}", f"start.initial={config.method.initial.model_dump_json()}"]


def train(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one head in a process of its own, or take it as it is."""
    kind, pretrained, linear = RUNS[name]
    scale = stage(kind, arguments).scales.get(arguments.scale or "", ())
    options = [*scale, *start(pretrained, arguments), f"seed={seed}"]
    if kind == "flow":
        options.append(f"steps={arguments.steps}")
    if linear:
        depth = load_config(arguments.chain / stage("pretrain", arguments).name / "config.yaml").model["depth"]
        options.append(f"task.head={{name: linear, layers: {list(range(depth))}}}")
    train_once(folder(arguments.out, name, seed), [kind, stage(kind, arguments).recipe, *options])


def measure(run_dir: Path, kind: str, worlds: int) -> float:
    """Return what a run reached on held-out worlds: the error over that of standing still, or mIoU in per cent."""
    world, seeds = load_task_config(kind, run_dir / "config.yaml").data.world, held_out_seeds(worlds, start=FIRST)
    network = MidwayNetwork.from_pretrained(run_dir / "export")
    if kind == "flow":
        return flow_probe(WorldFlow(world, seeds))(network)["flow/epe_over_zero"]
    return segmentation_probe(WorldSegmentation(world, seeds))(network)["segmentation/miou"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="midway_pico", help="the chain")
    parser.add_argument("--chain", type=Path, default=Path("runs/midway_pico"), help="where it was run")
    parser.add_argument("--scale", help="the scale that it was run at, e.g. cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining_matters"), help="where runs are kept")
    parser.add_argument("--steps", type=int, default=1000, help="of flow; classes take the chain's own")
    parser.add_argument("--without-classes", action="store_true", help="flow alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--worlds", type=int, default=128, help="held-out worlds to measure on")
    arguments = parser.parse_args()
    wanted = {name: run.kind for name, run in RUNS.items() if run.kind == "flow" or not arguments.without_classes}
    runs = [(name, seed) for seed in arguments.seeds for name in wanted]
    train_all(lambda *run: train(*run, arguments), runs, arguments.jobs)
    rows = {}
    for name, kind in wanted.items():
        unit = "EPE over standing still" if kind == "flow" else "mIoU (%)"
        rows[f"{name}: {unit}"] = [
            measure(folder(arguments.out, name, seed), kind, arguments.worlds) for seed in arguments.seeds
        ]
    table = seed_table(arguments.seeds, rows)
    if not arguments.without_classes:
        own = measure(arguments.chain / stage("segmentation", arguments).name, "segmentation", arguments.worlds)
        table.add_row("classes, the chain's own: mIoU (%)", *[""] * len(arguments.seeds), f"{own:.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
