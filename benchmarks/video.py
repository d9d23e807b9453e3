"""How fast the installed video readers reach random pairs of frames, as ratios to each other in one run.

    python benchmarks/video.py FOLDER [--pairs 10] [--threads 1]

For every video: the reader that "auto" takes, and for every reader that may read the file its speed relative to PyAV.
The speeds of one file are measured in turn, pair by pair, so that a busy machine slows all of them alike.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from midway_hub.video import READERS, FrameReader, VideoError, available_readers, open_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of videos, or one video")
    parser.add_argument("--pairs", type=int, default=10, help="random pairs per video (default 10)")
    parser.add_argument("--gap", type=int, nargs=2, default=(15, 30), help="frames between the two (default 15 30)")
    parser.add_argument(
        "--threads", type=int, default=1, help="decoding threads, 0 for the decoders' choice (default 1)"
    )
    args = parser.parse_args()
    print(", ".join(f"{name}: {version}" for name, version in available_readers().items()))
    print(f"{'video':40} {'auto':>11} {'ms to open':>11}", *(f"{name:>11}" for name in READERS))
    files = sorted(args.folder.iterdir()) if args.folder.is_dir() else [args.folder]
    for path in files:
        print(f"{path.name:40}", measure(path, args.pairs, tuple(args.gap), args.threads))


def measure(path: Path, pairs: int, gap: tuple[int, int], threads: int) -> str:
    """One row: the automatic choice, how long it takes to open, and every reader's pairs per second over PyAV's."""
    try:
        start = time.perf_counter()
        with open_video(path, num_threads=threads) as reader:
            opening, length, chosen = time.perf_counter() - start, len(reader), reader.name
        readers = {name: reader for name in READERS if (reader := try_open(path, name, threads))}
    except VideoError as error:
        return f"{'-':>11}  {str(error)[:70]}"
    rng = np.random.default_rng(0)
    seconds = dict.fromkeys(readers, 0.0)
    for _ in range(pairs):
        first = int(rng.integers(0, max(1, length - gap[1])))
        pair = [first, min(length - 1, first + int(rng.integers(gap[0], gap[1] + 1)))]
        for name, reader in readers.items():
            start = time.perf_counter()
            try:
                reader.get_frames(pair)
            except VideoError:
                continue
            seconds[name] += time.perf_counter() - start
    ratios = {name: f"{seconds['pyav'] / s:.2f}" if s else "-" for name, s in seconds.items()}
    row = " ".join(f"{ratios.get(name, '-'):>11}" for name in READERS)
    return f"{chosen:>11} {1e3 * opening:>11.1f} {row}"


def try_open(path: Path, name: str, threads: int) -> FrameReader | None:
    """A reader of a file, None where it is not installed or not exact."""
    try:
        return open_video(path, reader=name, num_threads=threads)
    except VideoError:
        return None


if __name__ == "__main__":
    main()
