"""Flow on disk by the frames it is between: shared by processes, bounded, damaged files computed anew."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from midway_hub.flow_io import FlowField, FlowFileError, read_flow
from midway_hub.training.data.flow_provider.protocol import FlowProvider, Names, check_frames

logger = logging.getLogger("midway_hub")

RECORD = "provider.json"
FORMAT = 1
"""Version of the files; to be raised with every change of them."""
SUFFIX, PARTIAL = ".npz", ".partial"
LOOKS = 64
"""How often the folder is looked through while a process fills it once: the others that fill it show only then."""
ROOM = 16
"""One part in so many of the limit is made free at a time."""
ABANDONED = 3600.0
"""Seconds after which a file that was being written is left over from a process that ended."""


class CachedFlow:
    """A provider whose answers are kept in a folder, one file per pair of frames.

    Answers are rounded to float16 whether they were there or not, so that a run sees the same numbers either way: to a
    2048th of themselves, 1/64 pixel at a length of 32. What float16 cannot hold is not known. Files are `.npz` of
    `flow`, which `midway_hub.flow_io.read_flow` reads; a checksum in them tells damage.

    Args:
        provider: Who is asked for what is not there.
        folder: Made if it is not there. It serves one provider.
        limit_bytes: What the files may measure together; what was not used for longest is deleted. Where several
            processes write, each may be a 64th part beyond.

    Attributes:
        hits: Pairs that were found.
        misses: Pairs that were computed.
        damaged: How many of these were there, but damaged.

    Raises:
        ValueError: The folder belongs to another provider or holds other things, or the limit is below 1.
    """

    def __init__(self, provider: FlowProvider, folder: Path, limit_bytes: int) -> None:
        if limit_bytes < 1:
            raise ValueError(f"a cache of flow may have at least 1 byte, got {limit_bytes}")
        self.provider, self.folder, self.limit_bytes = provider, folder, limit_bytes
        self.device = provider.device
        self.hits = self.misses = self.damaged = 0
        self._of = _text({"format": FORMAT, "provider": provider.fingerprint()})
        self._held: int | None = None
        self._written = 0
        self._has_warned = False
        _claim(folder, self._of)

    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow; see `FlowProvider`. All pairs that are missing are computed together."""
        check_frames(first, second)
        paths, size = self._paths(first, second), (first.shape[2], first.shape[3])
        found = {place: flow for place, path in enumerate(paths) if (flow := self._read(path, size)) is not None}
        missing = [place for place in range(len(paths)) if place not in found]
        if missing:
            rows = torch.tensor(missing, device=first.device)
            asked = None if names is None else [names[place] for place in missing]
            made = self.provider(first[rows], second[rows], names=asked).permute(0, 2, 3, 1).cpu().numpy()
            found |= {place: self._keep(paths[place], flow) for place, flow in zip(missing, made, strict=True)}
        self.hits, self.misses = self.hits + len(paths) - len(missing), self.misses + len(missing)
        flow = torch.from_numpy(np.stack([found[place] for place in range(len(paths))]))
        return flow.permute(0, 3, 1, 2).contiguous().to(first.device)

    def fingerprint(self) -> dict[str, Any]:
        """Return the provider's, and that its numbers are rounded."""
        return {**self.provider.fingerprint(), "cached_as": "float16"}

    def _paths(self, first: Tensor, second: Tensor) -> list[Path]:
        frames = [np.ascontiguousarray(frames.cpu().numpy()) for frames in (first, second)]
        said = f"{self._of}{frames[0].shape[1:]}{frames[1].shape[1:]}".encode()
        names = [
            hashlib.sha256(said + hashlib.sha256(one.data).digest() + hashlib.sha256(other.data).digest()).hexdigest()
            for one, other in zip(*frames, strict=True)
        ]
        return [self.folder / name[:2] / f"{name[2:]}{SUFFIX}" for name in names]

    def _read(self, path: Path, size: tuple[int, int]) -> np.ndarray | None:
        """Flow (H, W, 2), None where it is not there or damaged."""
        try:
            field = read_flow(path)
        except FlowFileError:
            self.damaged += 1
            return None
        except OSError:
            return None
        if field.valid.shape != size:
            self.damaged += 1
            return None
        now = time.time_ns()
        with suppress(OSError):  # deleted by now, or not ours to touch
            os.utime(path, ns=(now, now))
        return field.with_unknown(np.nan)

    def _keep(self, path: Path, flow: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            half = flow.astype(np.float16)
        try:
            size = _put(path, lambda file: np.savez(file, flow=half))
            self._make_room(size)
        except OSError as error:
            self._say_once(error)
        return FlowField.of(half).with_unknown(np.nan)

    def _make_room(self, written: int) -> None:
        self._written += written
        if self._held is not None:
            self._held += written
            if self._held <= self.limit_bytes and self._written < self.limit_bytes // LOOKS:
                return
        files = sorted(_files(self.folder))
        self._held, self._written = sum(size for _, size, _ in files), 0
        if self._held <= self.limit_bytes:
            return
        for _, size, path in files:
            if self._held <= self.limit_bytes - self.limit_bytes // ROOM:
                return
            path.unlink(missing_ok=True)
            self._held -= size

    def _say_once(self, error: OSError) -> None:
        if not self._has_warned:
            logger.warning("flow cannot be kept in %s (%s): it is computed every time", self.folder, error)
        self._has_warned = True


def _claim(folder: Path, said: str) -> None:
    """Write into a new folder whose cache it is, and refuse that of another provider."""
    record = folder / RECORD
    folder.mkdir(parents=True, exist_ok=True)
    if not record.is_file():
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if others and not record.is_file():  # by now, another process may have written it
            raise ValueError(
                f"{folder} holds {others[0]} and no {RECORD}, so it is no cache of flow; choose a new folder for it"
            )
        if not others:
            _put(record, lambda file: file.write(said.encode()))
    found = record.read_text(encoding="utf-8", errors="replace")
    if found != said:
        raise ValueError(
            f"the flow in {folder} was computed by another provider: {_difference(found, said)}; give this one a cache "
            f"of its own, or delete that folder"
        )


def _difference(found: str, said: str) -> str:
    """Say in what two records differ."""
    try:
        theirs, ours = (json.loads(text)["provider"] for text in (found, said))
        keys = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
        told = [f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in keys]
    except (ValueError, KeyError, TypeError):
        return f"its {RECORD} is damaged"
    return "; ".join(told) or "its files are of another version"


def _text(said: dict[str, Any]) -> str:
    return json.dumps(said, sort_keys=True, indent=2) + "\n"


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """When each file was last used, its bytes and its path; those that nobody finishes any more are deleted."""
    for path in folder.glob("*/*"):
        with suppress(OSError):  # another process may have deleted it
            seen = path.stat()
            if path.suffix == SUFFIX:
                yield seen.st_mtime_ns, seen.st_size, path
            elif path.suffix == PARTIAL and time.time() - seen.st_mtime > ABANDONED:
                path.unlink()


def _put(place: Path, write: Callable[[IO[bytes]], Any]) -> int:
    """Have a file written beside its place and moved there; return its bytes."""
    place.parent.mkdir(exist_ok=True)
    beside = place.with_name(f".{uuid4().hex}{PARTIAL}")
    try:
        with beside.open("xb") as file:
            write(file)
            size = file.tell()
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return size
