"""Speed and memory of `encode` and of clips, as ratios against peers measured in the same run.

    python benchmarks/encode.py                 # fp32 on CPU
    python benchmarks/encode.py --device cuda   # adds bf16 and torch.compile

Peers: timm's own ViT-S without our wrapper, the same network with softmax attention written out, and, for clips, the
encodings and the dynamics timed one by one. Runs are interleaved, so that a busy moment hits all alike; the figure is
the median.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timm.models.vision_transformer import VisionTransformer, vit_small_patch16_224

from midway_hub import MidwayConfig, MidwayNetwork

SIZES = ((224, 224), (512, 512), (512, 1024))
Case = Callable[[], object]


def network(*, eager: bool = False) -> MidwayNetwork:
    config = MidwayConfig()
    if eager:
        config._attn_implementation = "eager"
    return MidwayNetwork(config).eval()


def timm_vit(height: int, width: int) -> VisionTransformer:
    return vit_small_patch16_224(img_size=(height, width), num_classes=0).eval()


def medians(cases: dict[str, Case], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each case; all run in turn `rounds` times, in an order drawn anew, as each marks the next."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = random.Random(0)
    for round_index in range(rounds + 1):
        for name, case in order.sample(list(cases.items()), len(cases)):
            _wait(device)
            started = time.perf_counter()
            case()
            _wait(device)
            if round_index:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def encode_cases(
    height: int, width: int, batch: int, device: torch.device, dtype: torch.dtype, *, compiled: bool
) -> dict[str, Case]:
    ours = network().to(device, dtype)
    plain = network(eager=True).to(device, dtype)
    bare = timm_vit(height, width).to(device, dtype)
    images = torch.randn(batch, 3, height, width, device=device, dtype=dtype)
    functions = {"midway encode": ours.encode, "timm ViT-S": bare.forward_features, "softmax by hand": plain.encode}
    if compiled:
        functions = {f"{name}, compiled": torch.compile(function) for name, function in functions.items()}
    return {name: lambda function=function: function(images) for name, function in functions.items()}


def clip_cases(device: torch.device, dtype: torch.dtype, frames: int = 8) -> dict[str, Case]:
    net = network().to(device, dtype)
    clip = torch.randn(1, frames, 3, 224, 224, device=device, dtype=dtype)
    teacher, student = net._tapped(clip[0], "teacher"), net._tapped(clip[0, :-1], "student")
    target = {block: tokens[1:] for block, tokens in teacher.items()}
    return {
        "clip": lambda: net(clip),
        "teacher": lambda: net.encode(clip[0]),
        "student": lambda: net.encode(clip[0, :-1], network="student"),
        "dynamics": lambda: net.dynamics(student, target, (14, 14)),
    }


def peak_memory(name: str, height: int, width: int, batch: int, device: str) -> float:
    """Peak memory in MiB of one case in a process of its own: GPU memory, or growth of the process on Linux CPUs."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (name, height, width, batch, device))


def _peak(name: str, height: int, width: int, batch: int, device: str) -> float:
    torch.set_grad_enabled(False)
    case = encode_cases(height, width, batch, torch.device(device), torch.float32, compiled=False)[name]
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        case()
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform != "linux":
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = _status("VmRSS")
    case()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """One figure, in KiB, of what Linux says about this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--rounds", type=int, default=9, help="timed runs of every case")
    parser.add_argument("--batch", type=int, default=1, help="images at a time")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    settings = [(torch.float32, False)] + (
        [(torch.bfloat16, False), (torch.bfloat16, True)] if device.type == "cuda" else []
    )
    console = Console(width=120)
    for dtype, compiled in settings:
        console.print(_encode_table(arguments, device, dtype, compiled=compiled))
        if not compiled:
            console.print(_clip_table(arguments, device, dtype))


def _encode_table(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Table:
    title = f"encode, ViT-S, {dtype}, {device}, batch {arguments.batch}{', compiled' if compiled else ''}"
    table = Table("frame", "case", "images/s", "speed over timm", "speed over softmax", "peak MiB", title=title)
    for height, width in SIZES:
        cases = encode_cases(height, width, arguments.batch, device, dtype, compiled=compiled)
        taken = medians(cases, arguments.rounds, device)
        ours, bare, plain = taken.values()
        for name, seconds in taken.items():
            first = name == next(iter(taken))
            memory = (
                ""
                if compiled or dtype != torch.float32
                else f"{peak_memory(name, height, width, arguments.batch, device.type):.0f}"
            )
            table.add_row(
                f"{height}×{width}" if first else "",
                name,
                f"{arguments.batch / seconds:.2f}",
                f"{bare / ours:.3f}" if first else "",
                f"{plain / ours:.2f}" if first else "",
                memory,
            )
    return table


def _clip_table(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> Table:
    taken = medians(clip_cases(device, dtype), arguments.rounds, device)
    parts = taken["teacher"] + taken["student"] + taken["dynamics"]
    table = Table("clip of 8 frames, 224×224", "seconds", title=f"forward on clips, {dtype}, {device}")
    for name, seconds in taken.items():
        table.add_row(name, f"{seconds:.4f}")
    table.add_row("clip over the sum of its parts", f"{taken['clip'] / parts:.3f}")
    return table


if __name__ == "__main__":
    main()
