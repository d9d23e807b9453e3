"""Whether a pack still is what was written: checksums, the index against the files, samples decoded."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.jpeg_tar import member_name
from midway_hub.training.data.packs.layout import ROW, Manifest, PackedVideo, PackFolder
from midway_hub.training.data.packs.reading import DamagedFrameError, StoredVideo
from midway_hub.training.data.packs.settings import PackSettings
from midway_hub.training.data.packs.workers import run_tasks

_DECODED = 2


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        folder: The pack.
        shards: How many it should have.
        frames: Frames in its sound shards.
        problems: What is wrong, by shard.
    """

    folder: Path
    shards: int
    frames: int
    problems: dict[int, list[str]]

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def text(self) -> str:
        """The findings in lines, with what to do."""
        if self.ok:
            return f"{self.folder}: all {self.shards} shards are sound, {self.frames} frames"
        lines = [f"  shard {number}: {problem}" for number, found in self.problems.items() for problem in found]
        head = f"{self.folder}: {len(self.problems)} of {self.shards} shards are missing or damaged:"
        return "\n".join([head, *lines, "Pack again with the same videos and settings: sound shards are kept."])


@dataclass(frozen=True)
class _Task:
    folder: Path
    number: int
    settings: PackSettings


@dataclass(frozen=True)
class _Finding:
    number: int
    frames: int
    problems: list[str]


def verify(path: Path, *, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check every file of a pack against its sha256, its index against the files, and decode some frames of each video.

    Args:
        path: The pack's folder.
        processes: Shards checked at a time.
        progress: Called with the shards that are checked and all.

    Returns:
        What is wrong, if anything.

    Raises:
        PackError: There is no pack, or its `pack.json` is damaged.
    """
    path = Path(path)
    facts = PackFolder(path).facts()
    tasks = [_Task(path, number, PackSettings(**facts.settings)) for number in range(facts.shards)]
    findings = []
    for finding in run_tasks(_check, tasks, processes):
        findings.append(finding)
        if progress:
            progress(len(findings), len(tasks))
    problems = {found.number: found.problems for found in sorted(findings, key=lambda f: f.number) if found.problems}
    return VerifyReport(path, len(tasks), sum(found.frames for found in findings if not found.problems), problems)


def _check(task: _Task) -> Iterator[_Finding]:
    folder = PackFolder(task.folder)
    try:
        manifest = folder.manifest(task.number)
    except PackError as error:
        yield _Finding(task.number, 0, [str(error)])
        return
    problems = list(folder.differences(manifest))
    if not problems:  # else the rest would follow from them
        rows = folder.rows(task.number)
        problems = [*_index_problems(manifest, rows), *_members_problems(folder, manifest, rows, task.settings)]
        problems = problems or list(_decode_problems(folder, manifest, rows, task.settings))
    yield _Finding(task.number, sum(video.rows[1] - video.rows[0] for video in manifest.videos), problems)


def _index_problems(manifest: Manifest, rows: np.ndarray) -> Iterator[str]:
    spans = [video.rows for video in manifest.videos]
    expected = [0, *(last for _, last in spans)]
    if rows.dtype != ROW or [first for first, _ in spans] != expected[:-1] or expected[-1] != len(rows):
        yield f"its manifest does not fit its {len(rows)} rows"
        return
    for video in manifest.videos:
        part = rows[slice(*video.rows)]
        if (np.diff(part["number"]) <= 0).any() or (np.diff(part["seconds"]) <= 0).any():
            yield f"the frames of {video.name} are not in order"
        if video.file not in manifest.files:
            yield f"{video.file} is not among its files"
        elif int((part["offset"] + part["length"]).max()) > manifest.files[video.file].bytes:
            yield f"frames of {video.name} lie behind the end of {video.file}"


def _members_problems(
    folder: PackFolder, manifest: Manifest, rows: np.ndarray, settings: PackSettings
) -> Iterator[str]:
    if settings.form != "jpeg":
        return
    for name in {video.file for video in manifest.videos}:
        try:
            with tarfile.open(folder.path / name, "r:") as tar:
                members = [(member.name, member.offset_data, member.size) for member in tar]
        except (tarfile.TarError, OSError) as error:
            yield f"{name} is no tar file: {error}"
            continue
        if members != list(_expected_members(manifest.videos, rows)):
            yield f"the members of {name} are not those of its index"


def _expected_members(videos: list[PackedVideo], rows: np.ndarray) -> Iterator[tuple[str, int, int]]:
    for video in videos:
        for number, _, offset, length, _ in rows[slice(*video.rows)].tolist():
            yield member_name(video.name, number), offset, length


def _decode_problems(folder: PackFolder, manifest: Manifest, rows: np.ndarray, settings: PackSettings) -> Iterator[str]:
    for video in manifest.videos:
        part = rows[slice(*video.rows)]
        try:
            with closing(StoredVideo(folder.path / video.file, video, part, settings)) as stored:
                for position in np.linspace(0, len(part) - 1, _DECODED).astype(int).tolist():
                    shape = stored.frame(position).shape
                    if shape != (video.height, video.width, 3):
                        yield f"{video.name} has frames of {shape[1]}x{shape[0]}, not {video.width}x{video.height}"
        except DamagedFrameError as error:
            yield str(error)
