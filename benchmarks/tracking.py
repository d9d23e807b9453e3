"""Speed of tracking points through a video, against encoding both frames of every pair anew.

    python benchmarks/tracking.py                        # pico and ViT-S, 224×224, on CPU
    python benchmarks/tracking.py --device cuda --across 8

`track_points` encodes a frame once per network and keeps it for the next pair. What it is compared with starts it anew
on every two frames, from where the points are: the tracks are the same (checked), the frames are encoded twice. Frames
are noise that moves; both run in the same process, in turn, and the figure is the median.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from encode import medians
from perturbation import MODELS
from rich.console import Console
from rich.table import Table

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.analysis.track_places import grid_points
from midway_hub.analysis.tracking import track_points

METHODS = ("dynamics", "similarity")


def clip(frames: int, side: int) -> list[np.ndarray]:
    """Noise of 8×8 blocks that moves by 8 pixels per frame."""
    blocks = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    picture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(picture, 8 * number, axis=1) for number in range(frames)]


def streamed(net: MidwayNetwork, frames: list[np.ndarray], points: np.ndarray, **options: Any) -> Iterator[np.ndarray]:
    for step in track_points(net, frames, points, size=None, when_lost="ignore", **options):
        yield step.positions


def pair_by_pair(
    net: MidwayNetwork, frames: list[np.ndarray], points: np.ndarray, **options: Any
) -> Iterator[np.ndarray]:
    yield points
    for number, pair in enumerate(pairwise(frames)):
        *_, points = streamed(net, list(pair), points, seed=number, **options)
        yield points


def rows(name: str, table: Table, arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    net = MidwayNetwork(MidwayConfig(**MODELS[name])).eval().to(device)
    frames, points = clip(arguments.frames, arguments.size), grid_points((arguments.size,) * 2, arguments.across)
    for method in METHODS:
        options = {"method": method, "draws": arguments.draws}
        ways = {
            "streaming": partial(streamed, net, frames, points, **options),
            "pair by pair": partial(pair_by_pair, net, frames, points, **options),
        }
        tracks = [np.stack(list(way())) for way in ways.values()]
        same = np.abs(tracks[0] - tracks[1]).max() < 1e-3
        taken = medians({what: lambda way=way: list(way()) for what, way in ways.items()}, arguments.rounds, device)
        table.add_row(
            name,
            method,
            *(f"{len(frames) / taken[what]:.2f}" for what in ways),
            f"{taken['pair by pair'] / taken['streaming']:.2f}×",
            "yes" if same else "NO",
        )
    table.add_section()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["pico", "small"], help="with random weights")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--size", type=int, default=224, help="side of the frames in pixels")
    parser.add_argument("--frames", type=int, default=8, help="frames of the clip")
    parser.add_argument("--across", type=int, default=4, help="points across in a grid of them")
    parser.add_argument("--draws", type=int, default=8, help="random directions per heatmap")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of every case")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    torch.manual_seed(0)
    table = Table("network", "method", "frames/s, streaming", "frames/s, pair by pair", "faster by", "same tracks")
    table.title = (
        f"tracking {arguments.across**2} points, {arguments.size}×{arguments.size}, {arguments.draws} draws, fp32, "
        f"{arguments.device}, {torch.get_num_threads()} threads"
    )
    for name in arguments.models:
        rows(name, table, arguments)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
