"""The files of a pack, and how they become part of it: whole, on the disk, and last of all their manifest.

pack.json            settings, versions, the videos it is made from, how many of them make a shard
shards/00000.json    manifest of a shard: its files with sha256, its videos, what was rejected and why
shards/00000.npy     one row per frame: number and time in the original, place in the file, checksum
shards/00000.tar     its frames, in the form jpeg
videos/NAME.mp4      its videos, in the form h264
.parts/              what is being made
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from midway_hub._durable import sync
from midway_hub.training.data.packs.errors import PackError

_AGAIN = "run the command pack again: it makes this shard anew"

LAYOUT = 1
"""Goes up when a pack's files change their meaning."""

ROW = np.dtype([("number", "<i8"), ("seconds", "<f8"), ("offset", "<i8"), ("length", "<u4"), ("crc32", "<u4")])
"""A stored frame: its number and time in the original, and place and checksum of its bytes in the file."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a shard: what it has to be."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PackedVideo:
    """The frames of one video.

    Attributes:
        name: Its path below the folder that was packed.
        file: The file that holds it, relative to the pack.
        rows: First row of its frames and the one behind the last, in the rows of its shard.
        run: Frames that are neighbours in the original, but for thinning out; then the next such run starts.
        width, height: Pixels as stored.
        extradata: In the form h264 what the decoder needs to know beforehand, hexadecimal.
    """

    name: str
    file: str
    rows: tuple[int, int]
    run: int
    width: int
    height: int
    extradata: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A video that is not in the pack, and why."""

    file: str
    reason: str


class Manifest(BaseModel):
    """What a finished shard holds; written after everything that it speaks of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, StoredFile]
    videos: list[PackedVideo]
    rejected: list[Rejected]


class PackFacts(BaseModel):
    """What `pack.json` says.

    Attributes:
        layout: Version of the file layout.
        settings: `PackSettings.content()` of the first run.
        videos: Name and size in bytes of every video, in order.
        videos_per_shard: Neighbours in that order that make a shard.
        bytes_expected: Forecast size of the whole pack.
        versions: The packages that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: int
    settings: dict[str, Any]
    videos: list[tuple[str, int]]
    videos_per_shard: int
    bytes_expected: int
    versions: dict[str, str]

    @property
    def shards(self) -> int:
        return -(-len(self.videos) // self.videos_per_shard)


class PackFolder:
    """Paths of a pack, and reading and writing of what describes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / ".parts"
        self.facts_path = path / "pack.json"

    def manifest_path(self, number: int) -> Path:
        return self.path / "shards" / f"{number:05d}.json"

    def rows_name(self, number: int) -> str:
        return f"shards/{number:05d}.npy"

    def tar_name(self, number: int) -> str:
        return f"shards/{number:05d}.tar"

    def facts(self) -> PackFacts:
        """Read `pack.json`.

        Raises:
            PackError: It is missing, damaged or of another version.
        """
        path = self.facts_path
        if not path.is_file():
            raise PackError(f"{self.path} is no pack: it has no pack.json; make one with the command pack")
        try:
            facts = PackFacts.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise PackError(f"{path} is damaged ({_first(error)}); pack again into an empty folder") from None
        if facts.layout != LAYOUT:
            raise PackError(f"{path} has layout {facts.layout}, this version reads {LAYOUT}; pack the videos again")
        return facts

    def manifest(self, number: int) -> Manifest:
        """Read a shard's manifest.

        Raises:
            PackError: It is missing or damaged.
        """
        path = self.manifest_path(number)
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise PackError(f"shard {number} is not finished: there is no {path}") from None
        except ValidationError as error:
            raise PackError(f"{path} is damaged ({_first(error)}); {_AGAIN}") from None

    def rows(self, number: int) -> np.ndarray:
        """Return a shard's rows, mapped into memory, not read.

        Raises:
            PackError: The file is damaged.
            OSError: It is missing.
        """
        path = self.path / self.rows_name(number)
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise PackError(f"{path} is damaged ({error}); {_AGAIN}") from None
        if not isinstance(rows, np.ndarray) or rows.dtype != ROW or rows.ndim != 1:
            raise PackError(f"{path} is damaged (it holds no rows of frames); {_AGAIN}")
        return rows

    def differences(self, manifest: Manifest) -> Iterator[str]:
        """Say which files of a shard are not what its manifest says; reads all of them."""
        for name, expected in manifest.files.items():
            path = self.path / name
            if not path.is_file():
                yield f"{name} is missing"
            elif (size := path.stat().st_size) != expected.bytes:
                yield f"{name} has {size} bytes of {expected.bytes}"
            elif describe_file(path) != expected:
                yield f"{name} has another sha256 than when it was written: its bytes have changed"

    def publish(self, part: Path, name: str) -> StoredFile:
        """Give a finished part its name, once it is surely on the disk."""
        sync(part)
        described = describe_file(part)
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        sync(target.parent)
        return described

    def write_facts(self, facts: PackFacts) -> None:
        """Write `pack.json`."""
        self._write("pack.json", facts.model_dump_json(indent=1).encode())

    def write_manifest(self, number: int, manifest: Manifest) -> None:
        """Declare a shard finished."""
        self._write(f"shards/{number:05d}.json", manifest.model_dump_json(indent=1).encode())

    def write_rows(self, number: int, rows: np.ndarray) -> dict[str, StoredFile]:
        """Write a shard's rows; returns the file by its name."""
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        name = self.rows_name(number)
        return {name: self._write(name, buffer.getvalue())}

    def _write(self, name: str, data: bytes) -> StoredFile:
        part = self.parts / f"{Path(name).name}.{os.getpid()}"
        part.write_bytes(data)
        return self.publish(part, name)


def describe_file(path: Path) -> StoredFile:
    with path.open("rb") as file:
        return StoredFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return " ".join([".".join(map(str, first["loc"])), first["msg"]]).strip()
