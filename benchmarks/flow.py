"""Speed and memory of whole-frame flow over resolution, as ratios against torchvision's RAFT in the same run.

    python benchmarks/flow.py                            # fp32 on CPU; 1080p takes minutes and several GiB
    python benchmarks/flow.py --sizes 436x1024
    python benchmarks/flow.py --device cuda              # adds bf16 and torch.compile

A ViT-S network with a flow head of CroCo v2's sizes, and one with the correlation head of paper/flow_correlation_vits
and 12 updates, against `raft_large` and `raft_small` with 12 updates; all weights are random. Frames are padded and
flow is cropped back in every case. Under bf16 the network's weights are cast, RAFT's run under autocast, since it keeps
its coordinates in fp32. Runs are interleaved; the figure is the median.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from encode import medians
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_large, raft_small

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import AnyFlowHeadConfig, CorrelationHeadConfig, FlowHeadConfig
from midway_hub.models.tiling import Size, pad_to, round_up
from midway_hub.training.recipes import load_recipe

SIZES = ((218, 512), (436, 1024), (720, 1280), (1080, 1920))
RAFT_MULTIPLE, RAFT_UPDATES = 8, 12
PEER = "raft_large"
CORRELATION = "paper/flow_correlation_vits"
Estimate = Callable[[Tensor, Tensor], Tensor]


def midway(head: AnyFlowHeadConfig, device: torch.device, dtype: torch.dtype) -> Estimate:
    net = MidwayNetwork(MidwayConfig(target_network="shared", flow_head=head)).eval().to(device, dtype)
    return lambda source, target: net.flow(source, target).flow


def raft(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> Estimate:
    net = build().eval().to(device)

    def estimate(source: Tensor, target: Tensor) -> Tensor:
        height, width = source.shape[-2:]
        padded = (pad_to(frame, round_up((height, width), RAFT_MULTIPLE)) for frame in (source, target))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return net(*padded, num_flow_updates=RAFT_UPDATES)[-1][..., :height, :width]

    return estimate


NETWORKS: dict[str, Callable[[torch.device, torch.dtype], Estimate]] = {
    "midway ViT-S": partial(midway, FlowHeadConfig()),
    "midway ViT-S, correlation": partial(midway, CorrelationHeadConfig(**load_recipe(CORRELATION)["task"]["head"])),
    PEER: partial(raft, raft_large),
    "raft_small": partial(raft, raft_small),
}


def frames(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    source, target = torch.rand(2, 1, 3, *size, device=device) * 2 - 1
    return source, target


def peak_memory(name: str, size: Size, device: str, dtype: torch.dtype) -> float:
    """Peak memory in MiB of one pair in a process of its own: GPU memory, or growth of the process on Linux CPUs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, size, device, dtype))


def _peak(name: str, size: Size, device: str, dtype: torch.dtype) -> float:
    torch.set_grad_enabled(False)
    estimate, pair = NETWORKS[name](torch.device(device), dtype), frames(size, torch.device(device))
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        estimate(*pair)
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform != "linux":
        return float("nan")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    before = _status("VmRSS")
    estimate(*pair)
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """One figure, in KiB, of what Linux says about this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def curve(sizes: list[Size], rounds: int, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Table:
    """Time every network at every size."""
    title = f"flow of one pair, {dtype}, {device}, {torch.get_num_threads()} threads{', compiled' if compiled else ''}"
    table = Table("frame", "network", "s/pair", "s/megapixel", f"speed over {PEER}", "peak MiB", title=title)
    estimates = {name: build(device, dtype) for name, build in NETWORKS.items()}
    if compiled:
        estimates = {name: torch.compile(estimate) for name, estimate in estimates.items()}
    for size in sizes:
        pair = frames(size, device)
        taken = medians({name: partial(each, *pair) for name, each in estimates.items()}, rounds, device)
        for name, seconds in taken.items():
            table.add_row(
                f"{size[0]}×{size[1]}" if name == next(iter(taken)) else "",
                name,
                f"{seconds:.4f}",
                f"{seconds / (size[0] * size[1]) * 1e6:.3f}",
                f"{taken[PEER] / seconds:.2f}",
                "" if compiled else f"{peak_memory(name, size, device.type, dtype):.0f}",
            )
        table.add_section()
    return table


def _size(text: str) -> Size:
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--sizes", type=_size, nargs="+", default=SIZES, help="frames, such as 436x1024; from 128x128")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of every case")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    settings = [(torch.float32, False)]
    if device.type == "cuda":
        settings += [(torch.bfloat16, False), (torch.bfloat16, True)]
    console = Console(width=120)
    for dtype, compiled in settings:
        console.print(curve(list(arguments.sizes), arguments.rounds, device, dtype, compiled=compiled))


if __name__ == "__main__":
    main()
