"""How fast pretraining gets its frame pairs: from packs, and exactly decoded from the originals, as ratios to decord.

    python benchmarks/pretrain_data.py [CLIP] [--seconds 40] [--rounds 3] [--augment]

A visit opens a clip and takes five random pairs, 15 to 30 frames apart, as training does. Pairs per second of *CPU
time*, so per core and whatever else the machine does; everything runs on one thread. Originals and packs take turns.
Packs are meant to be at least 15 times as fast as decord. Without CLIP, the bundled 720p clip is played to and fro
for `--seconds` and encoded with a key frame every 250 frames.

With --augment also how fast the views of `paper/bdd_vits` are made: pair by pair on a CPU core, and batched on the
device.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
import torch

from midway_hub.training.data.clip import Clip, ClipSource
from midway_hub.training.data.packs import PackSettings, PackSource, pack
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.videos import VideoSource
from midway_hub.training.data.views import ViewSettings, apply_views, apply_views_batched, draw_views, normalise_views
from midway_hub.video import available_readers, open_video

GAP = GapSettings(frames=(15, 30))
PAIRS = 5
WANTED = 15
KEY_FRAMES = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?", help="a video; by default one is made")
    parser.add_argument("--seconds", type=float, default=40, help="length of the clip that is made (default 40)")
    parser.add_argument("--rounds", type=int, default=3, help="visits to the originals (default 3)")
    parser.add_argument("--short-side", type=int, default=360, help="of the packed frames (default 360)")
    parser.add_argument("--augment", action="store_true", help="also measure the making of views")
    parser.add_argument("--batch", type=int, default=20, help="pairs of a batch of views (default 20)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="midway-hub-") as folder:
        clip = args.clip or make_clip(Path(folder) / "clip.mp4", args.seconds)
        sources = {**original_sources(clip), **pack_sources(clip, Path(folder), args.short_side)}
        rates = measure(sources, args.rounds)
        print_rates(rates)
        if args.augment:
            augment(sources["jpeg pack"], args.batch)


def make_clip(path: Path, seconds: float) -> Path:
    """Encode the bundled clip, to and fro, with few key frames, as cameras do."""
    with open_video(files("midway_hub.samples") / "highway.mp4") as reader:
        frames = reader.get_frames(range(len(reader)))
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    with av.open(str(path), "w") as container:
        options = {"preset": "fast", "crf": "23", "x264-params": f"keyint={KEY_FRAMES}:min-keyint=25:scenecut=0"}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for time_, place in enumerate(islice(cycle(order), round(30 * seconds))):
            frame = av.VideoFrame.from_ndarray(frames[place], format="rgb24")
            frame.pts, frame.time_base = time_, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def original_sources(clip: Path) -> dict[str, ClipSource]:
    """The clip through every reader that is installed."""
    installed = {name: state for name, state in available_readers().items() if state[0].isdigit()}
    with open_video(clip) as reader:
        print(f"{clip.name}: {reader.width}x{reader.height}, {len(reader)} frames, {clip.stat().st_size / 1e6:.1f} MB")
    return {f"{name} {version}": VideoSource(clip, GAP, reader=name) for name, version in installed.items()}


def pack_sources(clip: Path, folder: Path, short_side: int) -> dict[str, ClipSource]:
    """The clip packed in both forms."""
    sources: dict[str, ClipSource] = {}
    for form in ("jpeg", "h264"):
        out = folder / form
        started = time.process_time()
        report = pack(clip, out, PackSettings(form=form, short_side=short_side, processes=1))
        seconds = time.process_time() - started
        print(f"{form} pack: {report.bytes / 1e6:.1f} MB, {report.frames / seconds:.0f} frames/s packed")
        sources[f"{form} pack"] = PackSource(out, GAP)
    return sources


def measure(sources: dict[str, ClipSource], rounds: int) -> dict[str, float]:
    """Pairs per second of CPU time."""
    seconds, pairs = dict.fromkeys(sources, 0.0), dict.fromkeys(sources, 0)
    for source in sources.values():
        source.clips(0, 1, np.random.default_rng(0))
    for visit in range(rounds):
        for name, source in sources.items():
            for turn in range(20 if "pack" in name else 1):  # packs are over in an instant
                generator = np.random.default_rng((visit, turn))
                started = time.process_time()
                pairs[name] += len(source.clips(0, PAIRS, generator))
                seconds[name] += time.process_time() - started
    return {name: pairs[name] / seconds[name] for name in sources}


def print_rates(rates: dict[str, float]) -> None:
    peer = next((name for name in rates if name.startswith("decord")), next(iter(rates)))
    print(f"\n{'source':20}{'pairs/s per core':>18}{'over ' + peer:>22}")
    for name, rate in rates.items():
        print(f"{name:20}{rate:18.1f}{rate / rates[peer]:22.1f}")
    slowest = min(rate / rates[peer] for name, rate in rates.items() if "pack" in name)
    print(f"packs at least {WANTED} times as fast as {peer}: {'yes' if slowest >= WANTED else 'NO'} ({slowest:.0f})")


def augment(source: ClipSource, batch: int) -> None:
    """Print the pairs per second of making views on a CPU core and on the device."""
    settings, groups = ViewSettings(), ("globals", "locals", "dense")
    pairs = source.clips(0, batch, np.random.default_rng(0))
    size = pairs[0].first.shape[:2]
    draws = [draw_views(settings, groups, size, np.random.default_rng(number)) for number in range(batch)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def one_by_one() -> None:
        for pair, draw in zip(pairs, draws, strict=True):
            apply_views(pair, draw)

    def batched() -> None:
        normalise_views(
            apply_views_batched(as_tensor(pairs, "first", device), as_tensor(pairs, "second", device), draws)
        )
        if device.type == "cuda":
            torch.cuda.synchronize()

    name = torch.cuda.get_device_name() if device.type == "cuda" else "one CPU core"
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    alone, together = batch / best_of(one_by_one, time.process_time), batch / best_of(batched, clock)
    print(f"\nviews of {size[1]}x{size[0]} pairs: {alone:.1f} pairs/s on a CPU core, pair by pair")
    print(f"{'':8}{together:.1f} pairs/s on {name}, {batch} at a time ({together / alone:.1f} times)")


def as_tensor(pairs: list[Clip], frame: str, device: torch.device) -> torch.Tensor:
    stacked = np.stack([getattr(pair, frame) for pair in pairs])
    return torch.from_numpy(stacked).to(device).permute(0, 3, 1, 2)


def best_of(work: Callable[[], None], clock: Callable[[], float], turns: int = 4) -> float:
    """Least seconds of several turns, the first not counted."""
    taken = []
    for _ in range(turns):
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken[1:])


if __name__ == "__main__":
    main()
