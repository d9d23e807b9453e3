"""Speed of the synthetic world, beside what a training step's views of the same pair cost.

    python benchmarks/world.py                 # on one CPU thread
    python benchmarks/world.py --device cuda   # adds the batched form on a GPU

The peer is the drawing and making of one pair's views on the same CPU thread, timed in turn with the world.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from midway_hub.training.data.clip import Clip
from midway_hub.training.data.synthetic import CLEAR, WorldSettings, render_moments, render_pairs
from midway_hub.training.data.views import ViewSettings, apply_views, draw_views

Case = tuple[Callable[[int], object], int]


def cases(settings: WorldSettings, device: torch.device, batch: int) -> dict[str, Case]:
    """What is timed, called with a number that makes every round another one, and the pairs it makes."""
    first, second = render_moments(settings, [0]).frames[0].permute(0, 2, 3, 1).numpy()
    pair = Clip.of_pair(first, second, "world 0", (0, 1), settings.seconds)
    clear = settings.model_copy(update={"effects": CLEAR})

    def views(number: int) -> object:
        return apply_views(pair, draw_views(ViewSettings().needs(), settings.size, np.random.default_rng(number)))

    def worlds(settings: WorldSettings, render: Callable, on: str, count: int) -> Case:
        return lambda number: render(settings, range(number * count, number * count + count), device=on), count

    timed = {
        "views of a pair, CPU": (views, 1),
        "frames, CPU": worlds(settings, render_moments, "cpu", 8),
        "frames without effects, CPU": worlds(clear, render_moments, "cpu", 8),
        "frames and truth, CPU": worlds(settings, render_pairs, "cpu", 8),
    }
    if device.type != "cpu":
        timed[f"frames, {device}"] = worlds(settings, render_moments, str(device), batch)
        timed[f"frames and truth, {device}"] = worlds(settings, render_pairs, str(device), batch)
    return timed


def seconds_per_pair(timed: dict[str, Case], rounds: int, device: torch.device) -> dict[str, float]:
    """Mean seconds of each case, all in turn: worlds differ in cost, so the mean is what a run sees."""
    spent = dict.fromkeys(timed, 0.0)
    for number in range(rounds + 1):
        for name, (case, count) in timed.items():
            started = time.perf_counter()
            case(number)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:  # the first round makes the textures
                spent[name] += (time.perf_counter() - started) / count / rounds
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=256, help="pairs at once on a GPU")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device, settings = torch.device(arguments.device), WorldSettings(size=tuple(arguments.size))
    taken = seconds_per_pair(cases(settings, device, arguments.batch), arguments.rounds, device)
    views, frames = list(taken.values())[:2]
    title = f"worlds of {arguments.size[0]}×{arguments.size[1]}, one CPU thread"
    table = Table("case", "ms per pair", "pairs/s", "over frames on CPU", "over a pair's views", title=title)
    for name, each in taken.items():
        table.add_row(name, f"{1000 * each:.2f}", f"{1 / each:.0f}", f"{frames / each:.2f}×", f"{views / each:.2f}×")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
