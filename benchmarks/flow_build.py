"""Speed of the bundled checkpoint's flow beside another checkpoint's and OpenCV's DIS, in one run, and its memory.

    python benchmarks/flow_build.py --before FOLDER [--threads 2] [--rounds 5]

FOLDER holds the checkpoint of an earlier build, as `MidwayNetwork.from_pretrained` loads it: the one with tiles is in
the repository's history under `midway_hub/weights`. Ratios are against it at the frames' own size, as it was when
`midway-hub flow` showed it these; later it was shown 128 lines by default. Runs are interleaved; the figure is the
median.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import medians
from flow import _status
from PIL import Image
from rich.console import Console
from rich.table import Table

from midway_hub import MidwayNetwork
from midway_hub.app.demo import sample_clip
from midway_hub.dense import clip_flow
from midway_hub.devices import native_bfloat16
from midway_hub.flow_peers import FlowPeer, make_peer
from midway_hub.registry import DEFAULT_MODEL
from midway_hub.video import open_video

PAIR, VIDEO, LARGE = (480, 640), (272, 640), (720, 1280)
CLIP = 12


def clip(size: tuple[int, int], frames: int) -> list[np.ndarray]:
    """Return frames of the bundled clip, resized."""
    with open_video(sample_clip()) as video:
        found = video.get_frames(list(range(frames)))
    return [np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC)) for frame in found]


def run(net: MidwayNetwork | FlowPeer, frames: Sequence[np.ndarray], **options: Any) -> None:
    """Estimate the flow of a clip as `midway-hub flow` does."""
    for _ in clip_flow(net, frames, **options):
        pass


def table(cases: dict[str, Callable[[], object]], rounds: int, title: str, frames: int) -> Table:
    """Time cases in turn; ratios are against the first."""
    taken = medians(cases, rounds, torch.device("cpu"))
    found = Table("what", "s a frame", "times as fast as before", title=title)
    before = next(iter(taken.values()))
    for name, seconds in taken.items():
        found.add_row(name, f"{seconds / frames:.3f}", f"{before / seconds:.1f}")
    return found


def peak_of_720p(model: str, threads: int) -> float:
    """Return how much a process of its own grows by, in MiB, over one pair of 720x1280."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (model, threads))


def _peak(model: str, threads: int) -> float:
    torch.set_num_threads(threads)
    net, frames = MidwayNetwork.from_pretrained(model), clip(LARGE, 2)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    run(net, frames)
    return (_status("VmHWM") - before) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the checkpoint; default: the bundled one")
    parser.add_argument("--before", required=True, help="folder of the checkpoint before")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of every case")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    nets = {name: MidwayNetwork.from_pretrained(name) for name in (arguments.before, arguments.model)}
    old, new = nets[arguments.before], nets[arguments.model]
    dis = make_peer("dis")
    fast = MidwayNetwork.from_pretrained(arguments.model, dtype=torch.bfloat16 if native_bfloat16() else torch.float32)
    console = Console(width=110)
    for what, size, count in (("one pair", PAIR, 2), (f"a clip of {CLIP} frames", VIDEO, CLIP)):
        frames = clip(size, count)
        cases: dict[str, Callable[[], object]] = {
            "before, at the frames' own size": partial(run, old, frames, size=None),
            "before, at 128 pixels, its default": partial(run, old, frames),
            arguments.model: partial(run, new, frames),
            f"{arguments.model}, fast": partial(run, fast, frames, size="half"),
            "OpenCV DIS": partial(run, dis, frames),
        }
        title = f"{what} of {size[0]}×{size[1]}, {arguments.threads} threads, torch {torch.__version__}"
        console.print(table(cases, arguments.rounds, title, count - 1))
    grown = peak_of_720p(arguments.model, arguments.threads)
    console.print(f"one pair of 720×1280 takes {grown:.0f} MiB beyond the loaded network")


if __name__ == "__main__":
    main()
