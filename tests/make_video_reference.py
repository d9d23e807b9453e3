"""Write tests/data/video_reference.npz: what the ffmpeg command decodes of the sample videos.

    python tests/make_video_reference.py ../shared/data

Per video stream it holds the times of the frames and a thumbnail of each, so that the tests can tell every frame from
its neighbours without ffmpeg and without the pictures: 8 x 8 grey means, 4 x 4 where the video's licence class is not
`permissive`.
"""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from video_clips import thumbnails

OUTPUT = Path(__file__).parent / "data" / "video_reference.npz"
STREAMS = {"nasa_13013_multistream.mp4": (None, 0)}


def ffmpeg_times(path: Path, stream: int | None) -> np.ndarray:
    """(n,) float64 seconds of the frames that ffmpeg puts out, as it reports them."""
    output = _run(path, stream, "-copyts", "-enc_time_base", "-1", "-f", "framecrc").decode()
    numerator, denominator = next(line for line in output.splitlines() if line.startswith("#tb")).split()[-1].split("/")
    ticks = [int(line.split(",")[2]) for line in output.splitlines() if line and line[0] != "#"]
    return np.array(ticks) * int(numerator) / int(denominator)


def ffmpeg_frames(path: Path, stream: int | None, width: int, height: int) -> Iterator[np.ndarray]:
    """(height, width, 3) uint8 frames as ffmpeg converts and turns them, one at a time."""
    command = _command(path, stream, "-f", "rawvideo", "-pix_fmt", "rgb24")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(width * height * 3):
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def ffmpeg_size(path: Path, stream: int | None) -> tuple[int, int]:
    """Width and height of the pictures that ffmpeg puts out."""
    header = _run(path, stream, "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe").split(maxsplit=3)
    return int(header[1]), int(header[2])


def _command(path: Path, stream: int | None, *options: str) -> list[str]:
    chosen = [] if stream is None else ["-map", f"0:{stream}"]
    return ["ffmpeg", "-v", "quiet", "-i", str(path), *chosen, "-an", "-sn", "-fps_mode", "passthrough", *options, "-"]


def _run(path: Path, stream: int | None, *options: str) -> bytes:
    return subprocess.run(_command(path, stream, *options), capture_output=True, check=False).stdout


def main() -> None:
    data = Path(sys.argv[1])
    with (data / "MANIFEST.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == "video"]
    arrays = {}
    for row in rows:
        path = data / row["file"]
        for stream in STREAMS.get(path.name, (None,)):
            if row["format"] == "UNOPENABLE":
                continue
            name = path.name if stream is None else f"{path.name}#{stream}"
            size = 8 if row["licence_class"] == "permissive" else 4
            frames = ffmpeg_frames(path, stream, *ffmpeg_size(path, stream))
            arrays[f"{name}/times"] = ffmpeg_times(path, stream)
            arrays[f"{name}/thumbnails"] = np.stack(list(thumbnails(frames, size)))
    np.savez_compressed(OUTPUT, **arrays)


if __name__ == "__main__":
    main()
