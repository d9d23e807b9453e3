"""How fast the installed video readers reach random pairs of frames, as ratios to PyAV in the same run.

    python benchmarks/video.py FOLDER [--pairs 10] [--rounds 3] [--threads 1]

For every video: the reader that "auto" takes, how long it takes to open, and the pairs per second of every reader that
is exact for the file, over those of PyAV. A reader stands idle (closed) while another is measured; they take turns, so
that a busy machine slows all of them alike.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from midway_hub.video import READERS, VideoError, available_readers, open_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of videos, or one video")
    parser.add_argument("--pairs", type=int, default=10, help="random pairs per video and round (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every reader (default 3)")
    parser.add_argument("--gap", type=int, nargs=2, default=(15, 30), help="frames between the two (default 15 30)")
    parser.add_argument(
        "--threads", type=int, default=1, help="decoding threads, 0 for the decoders' choice (default 1)"
    )
    args = parser.parse_args()
    print(", ".join(f"{name}: {version}" for name, version in available_readers().items()))
    print(f"{'video':42}{'auto':>8}{'ms to open':>12}{'pairs/s':>10}", *(f"{name:>11}" for name in READERS))
    for path in sorted(args.folder.iterdir()) if args.folder.is_dir() else [args.folder]:
        try:
            print(f"{path.name:42}{row(path, args)}")
        except VideoError as error:
            print(f"{path.name:42}{'-':>8}  {str(error).removeprefix(f'{path}: ')}")


def row(path: Path, args: argparse.Namespace) -> str:
    """The figures of one video."""
    start = time.perf_counter()
    with open_video(path, num_threads=args.threads) as reader:
        opening, length, chosen = time.perf_counter() - start, len(reader), reader.name
    rng = np.random.default_rng(0)
    first = rng.integers(0, max(1, length - args.gap[1]), args.pairs)
    pairs = np.stack([first, np.minimum(length - 1, first + rng.integers(args.gap[0], args.gap[1] + 1, args.pairs))], 1)
    seconds: dict[str, float] = {}
    for _ in range(args.rounds):
        for name in READERS:
            try:
                seconds[name] = seconds.get(name, 0.0) + read(path, name, pairs, args.threads)
            except VideoError:
                continue
    ratios = (f"{seconds['pyav'] / seconds[name]:11.2f}" if name in seconds else f"{'-':>11}" for name in READERS)
    rate = f"{args.rounds * len(pairs) / seconds['pyav']:10.1f}" if "pyav" in seconds else f"{'-':>10}"
    return f"{chosen:>8}{1e3 * opening:12.1f}{rate} {' '.join(ratios) if 'pyav' in seconds else ''}"


def read(path: Path, name: str, pairs: np.ndarray, threads: int) -> float:
    """Seconds in which a reader gets all pairs."""
    with open_video(path, reader=name, num_threads=threads) as reader:
        reader.get_frames([0])
        start = time.perf_counter()
        for pair in pairs:
            reader.get_frames(pair)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
