"""What pretraining is worth to a small network: flow and linear segmentation, on held-out synthetic worlds.

    python benchmarks/learning.py --out runs/learning --seeds 0 1 2
    python benchmarks/finetuning.py --pretrained runs/learning --out runs/finetuning --seeds 0 1 2

From every seed's pretrained network, `flow_synthetic_small` is finetuned for equal steps with the pretrained dynamics
and with new ones on the same encoder (the paper's "enc. only"), and `segmentation_synthetic_small` reads classes off
its frozen features and off those of an untrained encoder. Also: whether swapping the frames turns the flow round (the
length of the two estimates' sum over the sum of their lengths: 0 where it does). Runs that are there are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from seeded_runs import FIRST, folder, seed_table, train_all, train_once

from midway_hub import MidwayNetwork
from midway_hub.training.data.flow import WorldFlow
from midway_hub.training.data.segmentation import WorldSegmentation
from midway_hub.training.data.synthetic import held_out_seeds
from midway_hub.training.evaluation.pixels import inputs_of
from midway_hub.training.evaluation.probes import flow_probe, segmentation_probe
from midway_hub.training.tasks.config import load_task_config

RUNS = {
    "flow, pretrained dynamics": ("flow", "flow_synthetic_small", ()),
    "flow, new dynamics": ("flow", "flow_synthetic_small", ("start.dynamics=reinitialised",)),
    "classes, pretrained encoder": ("segmentation", "segmentation_synthetic_small", ()),
    "classes, untrained encoder": ("segmentation", "segmentation_synthetic_small", ("start.weights=null",)),
}


def train(name: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train one head in a process of its own, or take it as it is."""
    kind, recipe, overrides = RUNS[name]
    start = arguments.pretrained / f"midway_{seed}" / "export"
    chosen = [text.split(":", 1)[1] for text in arguments.overrides if text.split(":")[0] == kind]
    options = [f"start.weights={start}", f"seed={seed}", *overrides, *chosen]
    train_once(folder(arguments.out, name, seed), [kind, recipe, *options])


def measure(seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure the networks of one seed on held-out worlds."""
    rows: dict[str, float] = {}
    for name, (kind, _, _) in RUNS.items():
        run_dir = folder(arguments.out, name, seed)
        network = MidwayNetwork.from_pretrained(run_dir / "export")
        world, seeds = load_task_config(kind, run_dir / "config.yaml").data.world, held_out(arguments.worlds)
        if kind == "flow":
            flows = WorldFlow(world, seeds)
            rows[f"{name}: EPE over standing still"] = flow_probe(flows)(network)["flow/epe_over_zero"]
            rows[f"{name}: does not turn round"] = asymmetry(network, flows)
        else:
            rows[f"{name}: mIoU (%)"] = segmentation_probe(WorldSegmentation(world, seeds))(network)[
                "segmentation/miou"
            ]
    return rows


@torch.no_grad()
def asymmetry(network: MidwayNetwork, flows: WorldFlow) -> float:
    """Length of forward plus backward flow over that of both: 0 where swapping the frames turns the flow round."""
    total = length = 0.0
    for index in range(len(flows)):
        first, second = inputs_of(network, flows[index].first, flows[index].second)
        means = [network.flow(*pair).flow.mean(dim=(2, 3)) for pair in ((first, second), (second, first))]
        total += (means[0] + means[1]).norm().item()
        length += means[0].norm().item() + means[1].norm().item()
    return total / max(length, 1e-12)


def held_out(count: int) -> range:
    return held_out_seeds(count, start=FIRST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", type=Path, default=Path("runs/learning"), help="from benchmarks/learning.py")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--worlds", type=int, default=128, help="held-out worlds to measure on")
    parser.add_argument("overrides", nargs="*", help="flow:section.key=value or segmentation:section.key=value")
    arguments = parser.parse_args()
    runs = [(name, seed) for seed in arguments.seeds for name in RUNS]
    train_all(lambda *run: train(*run, arguments), runs, arguments.jobs)
    measured = [measure(seed, arguments) for seed in arguments.seeds]
    rows = {name: [each[name] for each in measured] for name in measured[0]}
    Console(width=140).print(seed_table(arguments.seeds, rows))


if __name__ == "__main__":
    main()
