"""How long a video takes to open again, with its list of frames kept in a folder and without, as a ratio.

    python benchmarks/video_index.py [VIDEO ...] [--megabytes 480] [--rounds 5]

Without a kept list, `open_video` reads the whole file each time. Without VIDEO, a clip of `--megabytes` is made of
incompressible pictures. Opening with and without take turns; the figures are medians, with the file in the system's
cache: from a disk or a network, the walk costs as much more as reading the file does.
"""

import argparse
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from midway_hub.video import open_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="*", help="by default one is made")
    parser.add_argument("--megabytes", type=float, default=480, help="size of the clip that is made (default 480)")
    parser.add_argument("--rounds", type=int, default=5, help="openings with and without (default 5)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="midway-hub-") as folder:
        videos = args.videos or [make_clip(Path(folder) / "clip.mp4", args.megabytes)]
        print(f"{'video':32}{'MB':>8}{'frames':>9}{'ms without':>12}{'ms with':>10}{'ratio':>9}{'list KB':>10}")
        for number, video in enumerate(videos):
            print(row(video, Path(folder) / f"kept_{number}", args.rounds))


def row(video: Path, kept: Path, rounds: int) -> str:
    """The figures of one video."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    frames = opening(video, kept)[1]
    for _ in range(rounds):
        for cached in seconds:
            seconds[cached].append(opening(video, kept if cached else None)[0])
    without, with_list = (1e3 * statistics.median(seconds[cached]) for cached in (False, True))
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    figures = f"{video.stat().st_size / 1e6:8.1f}{frames:9}{without:12.2f}{with_list:10.2f}{without / with_list:9.1f}"
    return f"{video.name:32}{figures}{size / 1e3:10.1f}"


def opening(video: Path, kept: Path | None) -> tuple[float, int]:
    """Seconds that opening takes, and the number of frames."""
    started = time.perf_counter()
    with open_video(video, num_threads=1, index_cache=kept) as reader:
        return time.perf_counter() - started, len(reader)


def make_clip(path: Path, megabytes: float) -> Path:
    """Write noise as JPEG, which hardly compresses, until the file is as large as wanted."""
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30, options={"qmin": "2", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuvj420p"
        written, number = 0, 0
        while written < 1e6 * megabytes:
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, axis=1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            packets = stream.encode(frame)
            container.mux(packets)
            written, number = written + sum(packet.size for packet in packets), number + 1
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
