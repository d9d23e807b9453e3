"""Making one shard: the work of one process."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midway_hub.training.data.packs.choice import frames_to_keep, packed_size
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.forms import FORMS, ShardWriter
from midway_hub.training.data.packs.layout import ROW, Manifest, PackedVideo, PackFolder, Rejected
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.video import FrameReader, VideoError, open_video

_BATCH = 8


@dataclass(frozen=True)
class ShardTask:
    """A shard to be made, or to be kept if it is there and whole.

    Attributes:
        folder: The pack's.
        number: Which shard.
        videos: (name, path) of its videos.
        settings: The pack's.
    """

    folder: Path
    number: int
    videos: tuple[tuple[str, str], ...]
    settings: PackSettings

    def __str__(self) -> str:
        return f"shard {self.number} ({self.videos[0][0]} to {self.videos[-1][0]})"


@dataclass(frozen=True)
class Step:
    """What has been done since the last one.

    Attributes:
        files: Videos finished, the rejected ones included.
        frames, bytes: Stored; negative where a video turned out bad after its first frames.
        rejected: Videos left out.
        kept: An earlier run had made this shard.
    """

    files: int = 0
    frames: int = 0
    bytes: int = 0
    rejected: tuple[Rejected, ...] = ()
    kept: bool = False


def make_shard(task: ShardTask) -> Iterator[Step]:
    """Make a shard, reporting every few frames; one that an earlier run finished is checked and kept.

    Raises:
        PackError: It cannot be written, or a video is no longer there.
    """
    folder = PackFolder(task.folder)
    finished = _finished(folder, task.number)
    if finished is not None:
        frames = sum(last - first for first, last in (video.rows for video in finished.videos))
        size = sum(file.bytes for file in finished.files.values())
        yield Step(len(task.videos), frames, size, tuple(finished.rejected), kept=True)
        return
    folder.manifest_path(task.number).unlink(missing_ok=True)
    with _storage():
        writer = FORMS[task.settings.form].writer(folder, task.number, task.settings)
    videos: list[PackedVideo] = []
    rows: list[np.ndarray] = [np.empty(0, ROW)]
    rejected: list[Rejected] = []
    with contextlib.closing(writer):
        for name, path in task.videos:
            result = yield from _pack_video(writer, name, path, sum(map(len, rows)), task.settings)
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                videos.append(result[0])
                rows.append(result[1])
        with _storage():
            files = writer.finish() | folder.write_rows(task.number, np.concatenate(rows))
            folder.write_manifest(task.number, Manifest(files=files, videos=videos, rejected=rejected))


def stored_frames(
    reader: FrameReader, numbers: np.ndarray, settings: PackSettings
) -> Iterator[tuple[np.ndarray, int, float]]:
    """Decode frames in order; yields each at its packed size with its number and time.

    Raises:
        VideoError: One of them cannot be decoded.
    """
    from PIL import Image

    size = packed_size(reader.width, reader.height, settings)
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH]
        for number, picture in zip(batch.tolist(), reader.get_frames(batch), strict=True):
            if size != (reader.width, reader.height):
                picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
            yield picture, number, float(reader.timestamps[number])


def _pack_video(
    writer: ShardWriter, name: str, path: str, first_row: int, settings: PackSettings
) -> Generator[Step, None, tuple[PackedVideo, np.ndarray] | Rejected]:
    """Store a video, or nothing of it."""
    frames = size = 0
    try:
        with _open(path, settings) as reader:
            kept = frames_to_keep(reader.timestamps, settings)
            if kept.size < 2:
                raise VideoError(
                    f"{path}: a pair needs two frames, of its {len(reader)} these settings keep {kept.size}"
                )
            with _storage():
                writer.begin(name, packed_size(reader.width, reader.height, settings), run=kept.shape[1])
            for picture, number, seconds in stored_frames(reader, kept.ravel(), settings):
                with _storage():
                    added = writer.add(picture, number, seconds)
                frames, size = frames + 1, size + added
                yield Step(frames=1, bytes=added)
    except VideoError as error:
        with _storage():
            writer.discard()
        rejected = Rejected(name, str(error).removeprefix(f"{path}: "))
        yield Step(files=1, frames=-frames, bytes=-size, rejected=(rejected,))
        return rejected
    with _storage():
        packed = writer.end(first_row)
    yield Step(files=1)
    return packed


def _open(path: str, settings: PackSettings) -> FrameReader:
    try:
        return open_video(path, reader=settings.reader, num_threads=1)
    except OSError as error:
        raise PackError(f"{path} can no longer be read: {error}; bring it back and run again to go on") from error


def _finished(folder: PackFolder, number: int) -> Manifest | None:
    """The manifest of a shard that an earlier run finished and nothing has damaged since."""
    try:
        manifest = folder.manifest(number)
    except PackError:
        return None
    return None if any(folder.differences(manifest)) else manifest


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """Say what could not be written, and that what is finished is safe."""
    try:
        yield
    except OSError as error:
        raise PackError(
            f"the pack could not be written: {error.strerror or error}. Finished shards are safe: make room, and run "
            f"again to go on"
        ) from error
