"""What pretraining is worth to the bundled network: the same flow finetuning from it and from an untrained network.

    python -m midway_hub.training reproduce midway_pico_synthetic --scale cpu --out runs/pico
    python benchmarks/pretraining_matters.py --chain runs/pico --scale cpu --steps 1500 --seeds 0 1 2

Takes the first flow stage of the chain, for equal steps and from every seed (of the data's order, the head and the
untrained network), once from the chain's pretraining and once from an untrained network of the same architecture and
first weights, and measures both on held-out worlds. Runs that are there are kept, so a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from midway_hub.training.config import load_config
from midway_hub.training.data.flow import WorldFlow
from midway_hub.training.data.synthetic import held_out_seeds
from midway_hub.training.evaluation.probes import flow_probe
from midway_hub.training.reproduce import Stage, read_chain
from midway_hub.training.tasks.config import load_task_config
from rich.console import Console
from rich.table import Table

from midway_hub import MidwayNetwork

FIRST = 10_000  # held-out worlds that are not measured on during training
STARTS = ("pretrained", "untrained")


def stages(arguments: argparse.Namespace) -> tuple[Stage, Stage]:
    """Return the chain's pretraining and the flow stage that starts from it."""
    chain = read_chain(arguments.name)
    pretraining = next(stage for stage in chain.stages if stage.kind == "pretrain")
    return pretraining, next(stage for stage in chain.stages if stage.start == pretraining.name)


def start_of(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return the overrides that say what a run starts from."""
    folder = arguments.chain / stages(arguments)[0].name
    if name == "pretrained":
        return [f"start.weights={folder / 'export'}"]
    config = load_config(folder / "config.yaml")
    return [f"start.model={json.dumps(config.model)}", f"start.initial={config.method.initial.model_dump_json()}"]


def train(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Finetune one network in a process of its own, or take it as it is."""
    run_dir = arguments.out / f"{name}_{seed}"
    if (run_dir / "export").is_dir():
        return
    flow = stages(arguments)[1]
    scale = flow.scales.get(arguments.scale or "", ())
    chosen = [*scale, *start_of(name, arguments), f"steps={arguments.steps}", f"seed={seed}"]
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "log.txt").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "midway_hub.training", flow.kind, flow.recipe, *chosen, "--run-dir", str(run_dir)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            check=True,
        )


def measure(name: str, seed: int, arguments: argparse.Namespace) -> float:
    """Return the end-point error over that of standing still on held-out worlds."""
    run_dir = arguments.out / f"{name}_{seed}"
    world = load_task_config("flow", run_dir / "config.yaml").data.world
    flows = WorldFlow(world, held_out_seeds(arguments.worlds, start=FIRST))
    return flow_probe(flows)(MidwayNetwork.from_pretrained(run_dir / "export"))["flow/epe_over_zero"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="midway_pico_synthetic", help="the chain")
    parser.add_argument("--chain", type=Path, default=Path("runs/midway_pico_synthetic"), help="where it was run")
    parser.add_argument("--scale", help="the scale that it was run at, e.g. cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining_matters"), help="where runs are kept")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--worlds", type=int, default=128, help="held-out worlds to measure on")
    arguments = parser.parse_args()
    runs = [(name, seed) for seed in arguments.seeds for name in STARTS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: train(*run, arguments), runs))
    table = Table("EPE over standing still", *(f"seed {seed}" for seed in arguments.seeds), "mean ± spread")
    for name in STARTS:
        values = [measure(name, seed, arguments) for seed in arguments.seeds]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{statistics.mean(values):.3f}{spread}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
