"""Every pretraining method on the same synthetic worlds: what its features are good for, and what a step costs.

    python benchmarks/relatives.py --out runs/relatives --seeds 0 1 2 --jobs 2                  # equal pairs
    python benchmarks/relatives.py --out runs/relatives --seeds 0 1 2 --jobs 2 --equal compute  # equal FLOPs

Trains every method's recipe `small/METHOD` from every seed, for equal steps of equally many clips or, with `--equal
compute`, for as many steps as cost what the dearest method's do by torch's FLOP counter. Measured on held-out worlds:

- linear and k-NN read-out of what is where, from frozen patch features (mean intersection over union, in per cent)
- matching: error of coarse flow by nearest features, as a share of the error of standing still
- flow: end-point error after finetuning for equal steps (`small/flow`: Midway with its own dynamics, all others with
  new ones), as a share of standing still
- propagation: labels of a clip's first frame carried to its last frames by features (mean J of patches, in per cent)
- a step: FLOPs, seconds on one thread, and peak memory of the process

`untrained` is the encoder that all begin with. Runs that are there are kept, so a stopped benchmark goes on; the table
is printed of those that are done with `--table`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from seeded_runs import FIRST, train_all, train_once
from torch.utils.flop_counter import FlopCounterMode

from midway_hub import MidwayNetwork, load_encoder
from midway_hub.analysis.propagation import propagate_maps
from midway_hub.analysis.propagation_protocols import adjusted, find_protocol
from midway_hub.training.build import build_parts
from midway_hub.training.config import RunConfig, load_config
from midway_hub.training.data.synthetic import held_out_seeds, render_clip, render_pairs
from midway_hub.training.data.views import normalise
from midway_hub.training.probes.coarse_flow import CoarseFlowProbe
from midway_hub.training.probes.dense import DenseProbe, LabelledFrames, patch_labels
from midway_hub.training.probes.held_out import HeldOutPairs, held_out_pairs

METHODS = (
    *("midway", "dino", "dino_single", "dynamo", "dynamo_window", "croco", "tdv", "tcore", "dora", "densecl", "flowe"),
    *("poodle", "cmp"),
)
UNTRAINED = "untrained"
COLUMNS = {
    "linear": "linear mIoU % ↑",
    "knn": "k-NN mIoU % ↑",
    "matching": "matching / still ↓",
    "flow": "flow / still ↓",
    "propagation": "propagation J % ↑",
}
CLIPS, CLIP_FRAMES = 16, 8
LAST = 3


def config_of(method: str, seed: int, steps: int) -> RunConfig:
    return load_config(f"small/{method}", [f"seed={seed}", f"steps={steps}"])


def flops_of(method: str) -> float:
    """FLOPs of forward and backward of one step, by torch's counter."""
    config = load_config(f"small/{method}", ["data.workers=0"])
    parts = build_parts(config)
    batch = parts.batches.finish(next(iter(parts.batches.iterate(0, 1))), torch.device("cpu"))
    parts.method.network.train()
    with FlopCounterMode(display=False) as counter:
        torch.stack(list(parts.method.network(batch).losses.values())).sum().backward()
    return float(counter.get_total_flops())


def train(method: str, seed: int, out: Path, steps: int, flow_steps: int) -> None:
    """Pretrain, finetune for flow and measure, as far as that is not done."""
    folder = out / f"{method}_{seed}"
    result = folder / "result.json"
    if result.is_file():
        return
    if method == UNTRAINED:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "export").is_dir():
            subprocess.run([sys.executable, __file__, "--untrained", str(folder), "--seeds", str(seed)], check=True)
    else:
        train_once(folder, ["pretrain", f"small/{method}", f"seed={seed}", f"steps={steps}", "engine.progress=false"])
    dynamics = "pretrained" if method == "midway" else "reinitialised"
    train_once(
        folder / "flow",
        [
            *("flow", "small/flow", f"start.weights={folder / 'export'}", f"start.dynamics={dynamics}"),
            *(f"seed={seed}", f"steps={flow_steps}", f"evaluation.every_steps={flow_steps}", "engine.progress=false"),
        ],
    )
    subprocess.run(
        [sys.executable, __file__, "--measure", str(folder)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def save_untrained(folder: Path, seed: int) -> None:
    """Write the network that the small recipes begin with."""
    parts = build_parts(load_config("small/dino", [f"seed={seed}", "data.workers=0"]))
    parts.method.export().save_pretrained(folder / "export")


def measure(folder: Path) -> None:
    """Write what a run's encoder is good for."""
    config = load_config("small/worlds")
    network = load_encoder(folder / "export")
    pairs = held_out(config)
    dense = DenseProbe(LabelledFrames(frames=pairs.source, labels=pairs.labels))(network)  # type: ignore[arg-type]
    coarse = CoarseFlowProbe(pairs, perturbation_pairs=0)(network)  # type: ignore[arg-type]
    found = {
        "linear": 100 * dense["dense/linear/miou"],
        "knn": 100 * dense["dense/knn/miou"],
        "matching": coarse["coarse_flow/all/matching/epe_over_zero"],
        "flow": flow_error(folder / "flow" / "export"),
        "propagation": 100 * propagation(network, config),
    }
    metrics = folder / "metrics.jsonl"
    if metrics.is_file():
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        found["seconds"] = statistics.median(line["seconds_per_step"] for line in lines if "seconds_per_step" in line)
    (folder / "result.json").write_text(json.dumps(found, indent=2) + "\n")


def held_out(config: RunConfig) -> HeldOutPairs:
    worlds = render_pairs(config.data.world, held_out_seeds(96, start=FIRST))
    return held_out_pairs(worlds, size=64, patch_size=8)


@torch.no_grad()
def flow_error(export: Path) -> float:
    """End-point error over visible pixels of held-out worlds, as a share of that of standing still."""
    network = MidwayNetwork.from_pretrained(export)
    pairs = held_out(load_config("small/worlds"))
    flow = torch.cat([network.flow(pair.source, pair.target).flow for pair in pairs.batches(8, network.device)])
    error, still = (flow - pairs.flow).norm(dim=1), pairs.flow.norm(dim=1)
    return (error[pairs.visible].mean() / still[pairs.visible].mean()).item()


@torch.no_grad()
def propagation(network: Any, config: RunConfig) -> float:
    """Mean J of the classes of a clip's first frame in its last frames, patch by patch."""
    rules = adjusted(find_protocol("dino"), {"context": 4, "radius": 3, "top_k": 5})
    world = config.data.world.model_copy(update={"size": (64, 64)})
    scores = []
    for seed in held_out_seeds(CLIPS, start=2 * FIRST):
        clip = render_clip(world, seed, CLIP_FRAMES)
        features = network.encode(normalise(clip.frames)).last
        truth = patch_labels(clip.labels.long(), 8)
        classes = truth[0].unique().tolist()
        seeds = torch.stack([(truth[0] == label).float() for label in classes])
        found = [soft.argmax(dim=0) for soft in propagate_maps(features, seeds, rules)]
        for frame in range(CLIP_FRAMES - LAST, CLIP_FRAMES):
            for place, label in enumerate(classes):
                ours, theirs = found[frame] == place, truth[frame] == label
                if theirs.any():
                    scores.append((ours & theirs).sum().item() / (ours | theirs).sum().item())
    return statistics.mean(scores)


def memory_of(method: str) -> float:
    """Peak memory in MiB of a process that takes two steps."""
    command = [sys.executable, __file__, "--steps-of", method]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return float(said.stdout.split()[-1])


def take_steps(method: str) -> None:
    """Take two steps and print the peak memory of this process."""
    parts = build_parts(load_config(f"small/{method}", ["data.workers=0"]))
    optimizer = parts.method.make_optimizer()
    parts.method.network.train()
    for step, batch in enumerate(parts.batches.iterate(0, 2)):
        parts.method.schedule(optimizer, step)
        output = parts.method.network(parts.batches.finish(batch, torch.device("cpu")))
        torch.stack(list(output.losses.values())).sum().backward()
        parts.method.before_update(step)
        optimizer.step()
        parts.method.after_update(step)
        optimizer.zero_grad()
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def costs(out: Path, methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """FLOPs and memory of a step of every method, kept in a file."""
    file = out / "costs.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    for method in methods:
        if method not in known:
            known[method] = {"flops": flops_of(method), "memory": memory_of(method)}
            file.write_text(json.dumps(known, indent=2) + "\n")
    return known


def table(out: Path, seeds: Sequence[int], cost: dict[str, dict[str, float]], steps: Callable[[str], int]) -> Table:
    made = Table("method", "steps", *COLUMNS.values(), "GFLOP a step", "s a step", "MiB", title=f"seeds {list(seeds)}")
    for method in (*METHODS, UNTRAINED):
        files = [out / f"{method}_{seed}" / "result.json" for seed in seeds]
        results = [json.loads(file.read_text()) for file in files if file.is_file()]
        if not results:
            continue
        cells = [_spread([result[column] for result in results]) for column in COLUMNS]
        if method == UNTRAINED:
            made.add_row(method, "0", *cells, "", "", "")
            continue
        seconds = statistics.median(result["seconds"] for result in results)
        of = cost[method]
        made.add_row(
            *(method, str(steps(method)), *cells),
            *(f"{of['flops'] / 1e9:.1f}", f"{seconds:.2f}", f"{of['memory']:.0f}"),
        )
    return made


def _spread(values: list[float]) -> str:
    digits = 1 if max(values) > 5 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/relatives"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, default=400, help="of pretraining, with equal pairs")
    parser.add_argument("--flow-steps", type=int, default=300)
    parser.add_argument("--equal", choices=("pairs", "compute"), default="pairs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is there, and train nothing")
    for name in ("--measure", "--untrained"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measure:
        return measure(arguments.measure)
    if arguments.untrained:
        return save_untrained(arguments.untrained, arguments.seeds[0])
    if arguments.steps_of:
        return take_steps(arguments.steps_of)
    out = arguments.out / arguments.equal
    out.mkdir(parents=True, exist_ok=True)
    cost = costs(arguments.out, arguments.methods)
    dearest = max(of["flops"] for of in cost.values())

    def steps(method: str) -> int:
        scale = dearest / cost[method]["flops"] if arguments.equal == "compute" else 1.0
        return round(arguments.steps * scale)

    if not arguments.table:
        runs = [
            (method, seed, out, steps(method) if method != UNTRAINED else 0, arguments.flow_steps)
            for seed in arguments.seeds
            for method in (*arguments.methods, UNTRAINED)
        ]
        train_all(train, runs, arguments.jobs)
    Console(width=200).print(table(out, arguments.seeds, cost, steps))


if __name__ == "__main__":
    main()
