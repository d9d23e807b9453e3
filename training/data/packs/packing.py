"""Turning videos into a pack."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from midway_hub._durable import no_empty_folder
from midway_hub.extraction.sources import StrPath
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.forecast import Forecast, forecast_files
from midway_hub.training.data.packs.layout import PackFacts, PackFolder, Rejected
from midway_hub.training.data.packs.planning import begin, find_videos
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.training.data.packs.shard import ShardTask, Step, make_shard
from midway_hub.training.data.packs.workers import run_tasks, usable_cores

_SHOWN = 5


@dataclass(frozen=True)
class PackProgress:
    """How far packing has come.

    Attributes:
        files_done, files_total: Videos.
        bytes_expected: Forecast for the whole pack.
        frames, bytes: Stored so far, by earlier runs too.
        rejected: Videos left out so far.
    """

    files_total: int
    bytes_expected: int
    files_done: int = 0
    frames: int = 0
    bytes: int = 0
    rejected: tuple[Rejected, ...] = ()

    def after(self, step: Step) -> PackProgress:
        """Return the state after a step."""
        return replace(
            self,
            files_done=self.files_done + step.files,
            frames=self.frames + step.frames,
            bytes=self.bytes + step.bytes,
            rejected=self.rejected + step.rejected,
        )


@dataclass(frozen=True)
class PackReport:
    """A finished pack.

    Attributes:
        folder: Where it is.
        videos, frames, bytes: What it holds.
        rejected: Videos that were left out, and why.
        shards_made, shards_kept: By this run, and by earlier ones.
        seconds: This run took.
    """

    folder: Path
    videos: int
    frames: int
    bytes: int
    rejected: tuple[Rejected, ...]
    shards_made: int
    shards_kept: int
    seconds: float


def pack(
    videos: StrPath | Sequence[StrPath],
    out: StrPath,
    settings: PackSettings | None = None,
    *,
    progress: Callable[[PackProgress], None] | None = None,
) -> PackReport:
    """Pack videos into a folder that `PackSource` reads; a run that was stopped is taken up by the same call.

    Shards that are finished and sound are kept, all others are made. What a shard holds depends on the videos and
    settings alone, not on the number of processes nor on where an earlier run was stopped.

    Args:
        videos: Video files, folders, `.txt` lists, as `midway_hub.extraction.find_sources` takes them.
        out: The pack's folder: new, empty, or a pack of the same videos and settings.
        settings: Form, size, quality and so on.
        progress: Called as the work goes on.

    Returns:
        What the pack holds.

    Raises:
        FileNotFoundError: A video does not exist.
        ValueError: There are no videos.
        PackError: The folder holds another pack or other files, another process packs into it, the disk has no room,
            too many videos cannot be read, or a process died. The message says what to do.
    """
    settings = settings or PackSettings()
    started = time.monotonic()
    files = find_videos(videos, Path(out))
    folder = PackFolder(Path(out))
    with _locked(folder), _parts(folder):
        facts = begin(folder, files, settings)
        tasks = _divide(folder, facts, dict(files), settings)
        done = PackProgress(files_total=len(files), bytes_expected=facts.bytes_expected)
        kept = 0
        with closing(run_tasks(make_shard, tasks, settings.processes or usable_cores())) as steps:
            for step in steps:
                done, kept = done.after(step), kept + step.kept
                if progress:
                    progress(done)
                _check_quota(done, settings)
    return PackReport(
        folder=folder.path,
        videos=len(files) - len(done.rejected),
        frames=done.frames,
        bytes=done.bytes,
        rejected=tuple(sorted(done.rejected, key=lambda rejected: rejected.file)),
        shards_made=facts.shards - kept,
        shards_kept=kept,
        seconds=time.monotonic() - started,
    )


def forecast(videos: StrPath | Sequence[StrPath], out: StrPath, settings: PackSettings | None = None) -> Forecast:
    """Forecast size, time and reading speed of a pack; writes nothing that stays. Arguments and errors as `pack`."""
    return forecast_files(find_videos(videos, Path(out)), Path(out), settings or PackSettings())


def _divide(folder: PackFolder, facts: PackFacts, paths: dict[str, str], settings: PackSettings) -> list[ShardTask]:
    """The shards, of videos in the order of the first run."""
    videos, size = [(name, paths[name]) for name, _ in facts.videos], facts.videos_per_shard
    return [
        ShardTask(folder.path, number, tuple(videos[number * size : (number + 1) * size]), settings)
        for number in range(facts.shards)
    ]


def _check_quota(done: PackProgress, settings: PackSettings) -> None:
    if len(done.rejected) <= settings.max_rejected * done.files_total + 1e-9:
        return
    shown = "\n".join(f"  {rejected.file}: {rejected.reason}" for rejected in done.rejected[:_SHOWN])
    raise PackError(
        f"{len(done.rejected)} of {done.files_total} videos cannot be read, more than max_rejected="
        f"{settings.max_rejected:g} allows; mend or remove them, or allow more and run again:\n{shown}"
    )


@contextmanager
def _locked(folder: PackFolder) -> Iterator[None]:
    """Make the folder if need be, and keep other processes from packing into it; without a pack it does not stay."""
    lock = folder.path / ".lock"
    try:
        with no_empty_folder(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, timeout=0):
                try:
                    yield
                finally:
                    if [*folder.path.iterdir()] == [lock]:
                        with suppress(OSError):  # where files that are open cannot be deleted
                            lock.unlink()
    except Timeout:
        raise PackError(f"another process packs into {folder.path}; wait for it, or choose another folder") from None
    except (FileExistsError, NotADirectoryError):
        raise PackError(f"{folder.path} must be a folder, and a file is in its place") from None


@contextmanager
def _parts(folder: PackFolder) -> Iterator[None]:
    """A folder for what is being made, empty before and gone after; what a killed run left there goes too."""
    shutil.rmtree(folder.parts, ignore_errors=True)
    folder.parts.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder.parts, ignore_errors=True)
