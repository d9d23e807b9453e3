"""Frame pairs per second that become views: on the CPU, batched on a device, and by plain torchvision transforms.

    python benchmarks/augmentation.py                                   # one CPU core, 720p
    python benchmarks/augmentation.py --device cuda --video clip.mp4    # batched on the GPU, frames of a real video

All cases make the 22 views of the paper's recipe from the same frames, in one run; the figure is the median of rounds
in an order drawn anew. `CPU path` is what a loader's worker does, in one thread, draws included. `batched` gets frames
in the memory of the host and draws made beforehand, as from a worker, and its transfer to the device is counted. The
peer is the same recipe written as torchvision v2 transforms, one pipeline per kind of view.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2

from midway_hub import open_video
from midway_hub.training.data.clip import Clip
from midway_hub.training.data.views import (
    ColourRecipe,
    ViewDraw,
    ViewSettings,
    apply_views,
    apply_views_batched,
    draw_views,
)


def frame_pairs(video: Path | None, count: int, height: int, width: int) -> list[Clip]:
    """Pairs of a video, 20 frames apart, or of large random patches with noise."""
    if video is None:
        pictures = [_picture(seed, height, width) for seed in range(2 * count)]
        return [Clip.of_pair(pictures[n], pictures[n + count], "made up", (0, 1), 1.0) for n in range(count)]
    with open_video(video) as reader:
        gap = min(20, len(reader) - 1)
        starts = [n % (len(reader) - gap) for n in range(count)]
        frames = {number: reader.get_frames([number])[0] for number in {*starts, *(start + gap for start in starts)}}
    return [Clip.of_pair(frames[start], frames[start + gap], str(video), (start, start + gap), 1.0) for start in starts]


def _picture(seed: int, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    patches = Image.fromarray(generator.integers(0, 256, (9, 16, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(patches) + generator.normal(0, 10, (height, width, 3)), 0, 255).astype(np.uint8)


def draws_for(pairs: list[Clip], settings: ViewSettings) -> list[ViewDraw]:
    return [
        draw_views(settings.needs(), pair.first.shape[:2], np.random.default_rng(number))
        for number, pair in enumerate(pairs)
    ]


def on_cpu(pairs: list[Clip], settings: ViewSettings) -> None:
    for pair, draw in zip(pairs, draws_for(pairs, settings), strict=True):
        apply_views(pair, draw)


def batched(pairs: list[Clip], draws: list[ViewDraw], device: torch.device) -> Callable[[], dict[str, Tensor]]:
    """Return the batched path with its transfer to the device."""
    frames = torch.from_numpy(np.stack([pair.pictures for pair in pairs])).permute(0, 1, 4, 2, 3)
    if device.type == "cuda":
        frames = frames.pin_memory()
    return lambda: apply_views_batched(frames.to(device, non_blocking=True), draws)


def plain_torchvision(pairs: list[Clip], settings: ViewSettings) -> None:
    """The recipe as transforms, view by view; boxes are not shared between the frames, which costs the same."""
    one, two, local = settings.global_1, settings.global_2, settings.local
    globals_ = [_pipeline(recipe, settings.global_area, settings.global_size, settings, 0.5) for recipe in (one, two)]
    locals_ = [_pipeline(local, settings.local_area, settings.local_size, settings, 0.5)] * settings.local_count
    dense = [_pipeline(recipe, settings.dense_area, settings.dense_size, settings, 0.0) for recipe in (one, two)]
    for pair in pairs:
        for frame, last in zip((pair.first, pair.second), dense, strict=True):
            pixels = torch.from_numpy(frame).permute(2, 0, 1)
            box = RandomResizedCrop.get_params(pixels, list(settings.initial_area or (1, 1)), list(settings.aspect))
            initial = v2.functional.crop(pixels, *box)
            for pipeline in (*globals_, *locals_):
                pipeline(initial)
            last(pixels)


def _pipeline(
    recipe: ColourRecipe, area: tuple[float, float], size: int, settings: ViewSettings, flip: float
) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, area, settings.aspect, v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(flip),
            v2.RandomApply([v2.ColorJitter(*settings.jitter)], settings.jitter_probability),
            v2.RandomGrayscale(settings.grayscale_probability),
            v2.RandomApply([v2.GaussianBlur(13, settings.blur_radius)], recipe.blur),
            v2.RandomSolarize(128, recipe.solarise),
        ]
    )


def medians(cases: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each case; all run in turn, in an order drawn anew, after a round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = random.Random(0)
    for round_index in range(rounds + 1):
        for name, case in order.sample(list(cases.items()), len(cases)):
            started = time.perf_counter()
            case()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_index:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the batched path")
    parser.add_argument("--video", type=Path, help="take frames of this file; default: made up")
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), metavar=("H", "W"), help="of made-up frames")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of a batch")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of every case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    settings = ViewSettings()
    pairs = frame_pairs(arguments.video, arguments.pairs, *arguments.size)
    draws = draws_for(pairs, settings)
    cases = {
        "plain torchvision, CPU": lambda: plain_torchvision(pairs, settings),
        "CPU path": lambda: on_cpu(pairs, settings),
        f"batched, {device}": batched(pairs, draws, device),
    }
    taken = medians(cases, arguments.rounds, device)
    table = Table("case", "pairs/s", "over plain torchvision", "over the CPU path")
    table.title = f"22 views of each of {len(pairs)} pairs, frames of {draws[0].size[0]}×{draws[0].size[1]}"
    for name, seconds in taken.items():
        ratios = [f"{taken[peer] / seconds:.2f}" for peer in ("plain torchvision, CPU", "CPU path")]
        table.add_row(name, f"{len(pairs) / seconds:.1f}", *ratios)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
