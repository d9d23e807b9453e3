"""Speed of all perturbation heatmaps of a pair at one level, against the loop that makes one jvp per patch and draw.

    python benchmarks/perturbation.py                       # ViT-S, 224×224: 196 patches, on CPU
    python benchmarks/perturbation.py --model pico
    python benchmarks/perturbation.py --device cuda --model base --draws 16

The loop would take minutes, so some of its jvps are timed, before and after the heatmaps are made, and the median is
scaled to all of them; the heatmaps are timed whole, preparation included. Both run in the same process.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.analysis.perturbation import jacobian_heatmaps, perturbation_heatmaps
from midway_hub.analysis.tangents import JvpPush
from midway_hub.outputs import Motion

PICO = {
    "embed_dim": 128,
    "num_heads": 4,
    "motion_dim": 64,
    "midway_heads": 2,
    "backward_heads": 4,
    "predictor_heads": 4,
}
MODELS = {"pico": PICO, "small": {}, "base": {"embed_dim": 768, "num_heads": 12}}


class Loop:
    """The loop: one jvp of the level's predictor per patch and draw."""

    def __init__(self, net: MidwayNetwork, motion: Motion, level: int, directions: Tensor) -> None:
        index = motion.levels.index(level)
        self.predictor = net.dynamics.levels[str(level)]
        self.latents = net.dynamics.motion_proj(motion.latents[index])
        self.source, self.directions = motion.source[index], directions

    def score(self, patch: int, draw: int) -> Tensor:
        tangent = torch.zeros_like(self.source)
        tangent[0, 1 + patch] = self.directions[draw]
        with sdpa_kernel(SDPBackend.MATH):
            _, moved = jvp(lambda source: self.predictor.predict(self.latents, source), (self.source,), (tangent,))
        return torch.cosine_similarity(moved[0, 1:], self.directions[draw][None], dim=-1)


def seconds(case: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call."""
    _wait(device)
    started = time.perf_counter()
    case()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(
    net: MidwayNetwork, motion: Motion, *, draws: int, samples: int, rounds: int, device: torch.device
) -> Table:
    level, patches = motion.levels[-1], motion.grid[0] * motion.grid[1]
    total = patches * draws
    directions = torch.randn(draws, net.config.embed_dim, generator=torch.Generator().manual_seed(0)).to(device)
    loop = Loop(net, motion, level, directions)
    batched = JvpPush(loop.predictor, loop.latents, loop.source)
    some = torch.arange(1, 2, device=device)

    def one_jvp() -> Tensor:
        return loop.score(patches // 2, 0)

    def eight_jvps() -> Tensor:
        return batched(some, directions[:1].expand(batched.chunk, -1))

    heatmaps = perturbation_heatmaps(net, motion, level=level, draws=draws)  # warms up, and is compared below
    one_jvp(), eight_jvps()
    single, grouped, whole = [], [], []
    for _ in range(rounds):
        single += [seconds(one_jvp, device) for _ in range(samples)]
        grouped += [seconds(eight_jvps, device) / batched.chunk for _ in range(max(1, samples // batched.chunk))]
        whole.append(seconds(lambda: perturbation_heatmaps(net, motion, level=level, draws=draws), device))
    single += [seconds(one_jvp, device) for _ in range(samples)]
    exact = seconds(lambda: jacobian_heatmaps(net, motion, [patches // 2], level=level), device)

    looped = torch.stack([loop.score(patches // 2, draw) for draw in range(draws)]).mean(dim=0)
    off = (looped - heatmaps[patches // 2].flatten()).abs().max().item()
    taken = {
        f"loop of jvps ({len(single)} timed, scaled)": statistics.median(single) * total,
        f"jvps by {batched.chunk} under vmap (scaled)": statistics.median(grouped) * total,
        "perturbation_heatmaps": statistics.median(whole),
    }
    table = Table("way", "seconds", "ms per patch and draw", "faster than the loop")
    reference = next(iter(taken.values()))
    for name, each in taken.items():
        table.add_row(name, f"{each:.2f}", f"{1e3 * each / total:.3f}", f"{reference / each:.1f}×")
    table.caption = (
        f"{patches} patches × {draws} draws; a heatmap differs from the loop's by at most {off:.1e}. "
        f"One exact heatmap ({net.config.embed_dim} directions): {exact:.2f} s"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small", help="architecture, with random weights")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--size", type=int, default=224, help="side of the frames in pixels")
    parser.add_argument("--draws", type=int, default=16, help="random directions per patch")
    parser.add_argument("--samples", type=int, default=16, help="jvps timed before and after each whole run")
    parser.add_argument("--rounds", type=int, default=3, help="whole runs timed")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    net = MidwayNetwork(MidwayConfig(**MODELS[arguments.model])).eval().to(device)
    motion = net.infer_motion(*torch.randn(2, 1, 3, arguments.size, arguments.size, device=device))
    table = compare(
        net, motion, draws=arguments.draws, samples=arguments.samples, rounds=arguments.rounds, device=device
    )
    table.title = (
        f"heatmaps of all patches, {arguments.model}, {arguments.size}×{arguments.size}, fp32, {device}, "
        f"{torch.get_num_threads()} threads"
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
