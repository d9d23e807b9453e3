"""What a small network learns on synthetic worlds: Midway against its own start and against two-frame DINO.

    python benchmarks/learning.py --out runs/learning --seeds 0 1 2 --jobs 2

Trains `synthetic_small` with `midway` and with `dino` from every seed, for equal steps, and measures on held-out
worlds: the dense prediction's error (against the untrained network's, against saying that nothing moves, and with
another pair's motion latents), and coarse flow (perturbation peaks, and nearest-feature matching on either method's
features) as a share of the error of standing still. Runs that are there are kept, so a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from seeded_runs import FIRST, seed_table, train_all, train_once

from midway_hub import MidwayNetwork
from midway_hub.analysis.coarse_flow import coarse_flow
from midway_hub.analysis.flow_scores import flow_scores
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.training.config import RunConfig, load_config
from midway_hub.training.data.synthetic import held_out_seeds, render_pairs
from midway_hub.training.pretraining import rebuild
from midway_hub.training.probes.coarse_flow import CoarseFlowProbe
from midway_hub.training.probes.held_out import HeldOutPairs, held_out_pairs
from midway_hub.training.probes.prediction import PredictionProbe

METHODS: dict[str, tuple[str, ...]] = {"midway": (), "dino": ("~method.dynamics_weight",)}


def train(method: str, seed: int, out: Path, overrides: list[str]) -> Path:
    """Train one network in a process of its own, or take it as it is."""
    run_dir = out / f"{method}_{seed}"
    options = [f"method.name={method}", *METHODS[method], f"seed={seed}", *overrides]
    train_once(run_dir, ["pretrain", "synthetic_small", *options])
    return run_dir


def held_out(config: RunConfig, count: int) -> HeldOutPairs:
    patch, size = config.model["patch_size"], config.probes.size
    worlds = render_pairs(config.data.world, held_out_seeds(count, start=FIRST))
    return held_out_pairs(worlds, size=size, patch_size=patch)


@torch.no_grad()
def gate(network: MidwayNetwork, pairs: HeldOutPairs) -> float:
    """Mean of the smallest gate on a patch's way through a predictor: 1 lets its identity pass, 0 holds it back."""
    motion = network.infer_motion(pairs.source, pairs.target)
    least = []
    for level, source in zip(motion.levels, motion.source, strict=True):
        gates = [unit(source[:, 1:]).mean(dim=-1) for unit in network.dynamics.levels[str(level)].gates]
        least.append(torch.stack(gates).amin(dim=0).mean())
    return torch.stack(least).mean().item()


@torch.no_grad()
def elsewhere(network: MidwayNetwork, pairs: HeldOutPairs, level: int) -> float:
    """Coarse flow error over that of standing still, if a peak may lie anywhere but where the patch was.

    Tells a network whose predictor carries patches along, but lets their identity through as well, from one that
    carries nothing.
    """
    flows = []
    for pair in pairs.batches(1, network.device):
        motion = network.infer_motion(pair.source, pair.target)
        heatmaps = perturbation_heatmaps(network, motion, level=level, draws=8)
        heatmaps.flatten(1).fill_diagonal_(-2)
        flows.append(coarse_flow(heatmaps, patch_size=network.config.patch_size))
    flow = torch.stack(flows)
    options = {"valid": pairs.visible, "patch_size": network.config.patch_size}
    still = flow_scores(torch.zeros_like(flow), pairs.flow, **options)
    return flow_scores(flow, pairs.flow, **options).epe / still.epe


def measure(seed: int, out: Path, worlds: int, *, beside_dino: bool) -> dict[str, float]:
    """Measure the networks of one seed."""
    trained = MidwayNetwork.from_pretrained(out / f"midway_{seed}" / "export")
    config = load_config(out / f"midway_{seed}" / "config.yaml")
    start = rebuild(config.to_dict()).export()
    pairs = held_out(config, worlds)
    flow, prediction = CoarseFlowProbe(pairs, perturbation_pairs=worlds, draws=8), PredictionProbe(pairs)
    rows: dict[str, float] = {}
    for level in config.model["levels"]:
        name = f"prediction/level_{level}"
        after, before = prediction(trained), prediction(start)
        rows[f"prediction error, level {level}: trained"] = after[f"{name}/error"]
        rows[f"prediction error, level {level}: nothing moves"] = after[f"{name}/trivial"]
        rows[f"prediction error, level {level}: another pair's motion"] = after[f"{name}/other_motion"]
        rows[f"prediction error, level {level}: another pair's source"] = after[f"{name}/other_source"]
        rows[f"prediction error, level {level}: untrained"] = before[f"{name}/error"]
        rows[f"prediction error, level {level}: untrained, nothing moves"] = before[f"{name}/trivial"]
    after, before = flow(trained), flow(start)
    rows["standing still, pixels"] = after["coarse_flow/zero/epe"]
    for level in config.model["levels"]:
        rows[f"perturbation peaks, level {level}: trained"] = after[f"coarse_flow/level_{level}/epe_over_zero"]
        rows[f"perturbation peaks, level {level}: untrained"] = before[f"coarse_flow/level_{level}/epe_over_zero"]
        rows[f"peaks elsewhere, level {level}: trained"] = elsewhere(trained, pairs, level)
        rows[f"peaks elsewhere, level {level}: untrained"] = elsewhere(start, pairs, level)
    if beside_dino:
        rival = flow(MidwayNetwork.from_pretrained(out / f"dino_{seed}" / "export"))
        rows["matching: dino features"] = rival["coarse_flow/all/matching/epe_over_zero"]
    rows["matching: midway features"] = after["coarse_flow/all/matching/epe_over_zero"]
    rows["matching: untrained features"] = before["coarse_flow/all/matching/epe_over_zero"]
    rows["smallest gate: trained"], rows["smallest gate: untrained"] = gate(trained, pairs), gate(start, pairs)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--worlds", type=int, default=128, help="held-out worlds to measure on")
    parser.add_argument("--without-dino", action="store_true", help="train and measure midway alone")
    parser.add_argument("overrides", nargs="*", help="section.key=value for both methods")
    arguments = parser.parse_args()
    methods = ["midway"] if arguments.without_dino else list(METHODS)
    runs = [(method, seed) for method in methods for seed in arguments.seeds]
    train_all(lambda *run: train(*run, arguments.out, arguments.overrides), runs, arguments.jobs)
    options = {"worlds": arguments.worlds, "beside_dino": not arguments.without_dino}
    measured = [measure(seed, arguments.out, **options) for seed in arguments.seeds]
    rows = {name: [each[name] for each in measured] for name in measured[0]}
    table = seed_table(arguments.seeds, rows, title=__doc__.splitlines()[0])
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
