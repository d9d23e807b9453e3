"""What packing will cost and give, from a few frames of a few videos."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np

from midway_hub.training.data.packs.choice import frames_to_keep, packed_size
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.forms import FORMS, key_interval
from midway_hub.training.data.packs.layout import PackFolder
from midway_hub.training.data.packs.reading import StoredVideo
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.training.data.packs.shard import stored_frames
from midway_hub.training.data.packs.workers import usable_cores
from midway_hub.video import VideoError, open_video
from midway_hub.video.container import open_container

_HEADERS = 200
_SAMPLES = 4
_SPOTS, _SPOT_FRAMES = 3, 15
_READ = 24

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Forecast:
    """What packing will cost and give.

    Attributes:
        videos: How many there are.
        frames: Stored frames.
        bytes: Size of the pack.
        free: Bytes that the disk has free.
        seconds: Time that packing takes with `processes`.
        processes: Packing processes.
        pairs_per_second: Random pairs that one CPU core then reads.
    """

    videos: int
    frames: int
    bytes: int
    free: int
    seconds: float
    processes: int
    pairs_per_second: float

    @property
    def text(self) -> str:
        """The forecast in a line."""
        return (
            f"{self.videos} videos, about {self.frames} frames: {self.bytes / 1e9:.3g} GB ({self.free / 1e9:.3g} GB "
            f"are free), {_as_text(self.seconds)} with {self.processes} processes; then about "
            f"{self.pairs_per_second:.0f} pairs a second per CPU core"
        )


def forecast_files(files: Sequence[tuple[str, str]], folder: Path, settings: PackSettings) -> Forecast:
    """Forecast from the headers of some videos, and from packing and reading a few frames of a few of these.

    Args:
        files: (name, path) of all videos.
        folder: Where the pack is to be.
        settings: The pack's.

    Raises:
        PackError: None of the sampled videos can be read, or the folder for temporary files has no room.
    """
    paths = _spread([path for _, path in files], _HEADERS)
    reasons: list[str] = []
    headers = _try_each(paths, lambda path: _read_header(path, settings), reasons)
    try:
        samples = _try_each(_spread(headers, _SAMPLES), lambda header: _measure(header, settings), reasons)
    except OSError as error:
        place = tempfile.gettempdir()
        raise PackError(f"the forecast packs samples in {place}, and could not: {error}; set TMPDIR") from error
    if not samples:
        raise PackError(f"none of the videos that were sampled can be read; the first: {reasons[0]}")
    scale = len(files) / len(paths)
    pixels = sum(sample.frames * sample.header.stored_pixels for sample in samples)
    bytes_per_pixel = sum(sample.bytes for sample in samples) / pixels
    seconds_per_pixel = sum(s.storing for s in samples) / sum(s.frames * s.header.pixels for s in samples)
    opening = fmean(sample.opening for sample in samples)
    seconds = sum(opening + header.kept * header.pixels * seconds_per_pixel for header in headers)
    processes = min(settings.processes or usable_cores(), len(files))
    return Forecast(
        videos=len(files),
        frames=round(scale * sum(header.kept for header in headers)),
        bytes=round(scale * bytes_per_pixel * sum(header.kept * header.stored_pixels for header in headers)),
        free=free_bytes(folder),
        seconds=scale * seconds / processes,
        processes=processes,
        pairs_per_second=1 / (2 * fmean(sample.reading for sample in samples)),
    )


def free_bytes(folder: Path) -> int:
    """Return the free space where a folder is or will be."""
    return shutil.disk_usage(next(place for place in [folder, *folder.absolute().parents] if place.exists())).free


@dataclass(frozen=True)
class _Header:
    """What opening a video tells of it.

    Attributes:
        path: The file.
        pixels: Of a frame.
        kept: Frames that will be stored.
        stored_pixels: Of a stored frame.
    """

    path: str
    pixels: int
    kept: int
    stored_pixels: int


@dataclass(frozen=True)
class _Sample:
    """What a few frames of a video cost.

    Attributes:
        header: The video's.
        frames, bytes: Stored.
        opening: Seconds to open the video.
        storing: Seconds to decode the frames, shrink and store them.
        reading: Seconds to read one of them.
    """

    header: _Header
    frames: int
    bytes: int
    opening: float
    storing: float
    reading: float


def _read_header(path: str, settings: PackSettings) -> _Header:
    with open_container(Path(path)) as container:
        video = container.streams.best("video")
        if video is None or not video.width or not video.height:
            raise VideoError(f"{path}: has no video stream")
        rate = float(video.average_rate or 25)
        count = video.frames or round((container.duration or 0) / 1e6 * rate)
        width, height = packed_size(video.width, video.height, settings)
        kept = frames_to_keep(np.arange(count) / rate, settings).size
        return _Header(path, video.width * video.height, kept, width * height)


def _measure(header: _Header, settings: PackSettings) -> _Sample:
    """Pack some spots of a video into a folder that is removed again."""
    with tempfile.TemporaryDirectory(prefix="midway-hub-") as temporary, ExitStack() as stack:
        folder = PackFolder(Path(temporary))
        folder.parts.mkdir()
        opening = _Stopwatch()
        with opening:
            reader = stack.enter_context(open_video(header.path, reader=settings.reader, num_threads=1))
        writer = stack.enter_context(closing(FORMS[settings.form].writer(folder, 0, settings)))
        writer.begin("sample", packed_size(reader.width, reader.height, settings), 1)
        storing = _Stopwatch()
        for numbers in _spots(frames_to_keep(reader.timestamps, settings).ravel(), key_interval(settings)):
            reader.get_frames(numbers[:1])  # seeking there is not what packing will do
            with storing:
                for frame in stored_frames(reader, numbers, settings):
                    writer.add(*frame)
        with storing:
            video, rows = writer.end(0)
        size = sum(file.bytes for file in writer.finish().values()) + rows.nbytes
        stored = stack.enter_context(closing(StoredVideo(folder.path / video.file, video, rows, settings)))
        stored.frame(0)
        reading = _Stopwatch()
        with reading:
            for position in np.random.default_rng(0).integers(0, len(rows), _READ).tolist():
                stored.frame(position)
        return _Sample(header, len(rows), size, opening.seconds, storing.seconds, reading.seconds / _READ)


class _Stopwatch:
    """Adds up the time spent in its `with` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


def _spots(numbers: np.ndarray, interval: int) -> list[np.ndarray]:
    """Some stretches of the frames that will be stored, each of whole intervals between key frames."""
    length = -(-_SPOT_FRAMES // interval) * interval
    if len(numbers) <= _SPOTS * length:
        return [numbers]
    starts = np.linspace(0, len(numbers) - length, _SPOTS).astype(int)
    return [numbers[start : start + length] for start in starts]


def _try_each(items: Sequence[T], measure: Callable[[T], R], reasons: list[str]) -> list[R]:
    results = []
    for item in items:
        try:
            results.append(measure(item))
        except (VideoError, FileNotFoundError) as error:
            reasons.append(str(error))
    return results


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]


def _as_text(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"
