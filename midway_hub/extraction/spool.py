"""Arrays that grow on disk while they are computed, and become one `.safetensors` or `.npz` file all at once."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import socket
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self, get_args

import numpy as np

from midway_hub._durable import sync

logger = logging.getLogger("midway_hub")

Format = Literal["safetensors", "npz"]
FORMATS: tuple[Format, ...] = get_args(Format)

_BLOCK = 1 << 22
_PREFIX = ".midway-hub"
_HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()) or "host"
_PROCESS = secrets.token_hex(4)  # tells this process from an earlier one of the same number, as containers have them
_WORKING = re.compile(re.escape(_PREFIX) + r"-(?P<host>.+)-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})-[^-]+")
_CODES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


class StorageError(OSError):
    """An output could not be written: the disk is full, or the folder cannot be written to."""


class Spool:
    """Arrays that grow along their first axis in a temporary folder beside the outputs.

    The folder carries the host and the number of the process, so that a later run can tell the leftovers of a killed
    one (`remove_leftovers`). It is removed on leaving the `with` block, whatever happened.

    Args:
        folder: Output folder; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._rows: dict[str, int] = {}
        self._row: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

    def __enter__(self) -> Self:
        with _storage(self._folder):
            prefix = f"{_PREFIX}-{_HOST}-{os.getpid()}-{_PROCESS}-"
            self._working = Path(tempfile.mkdtemp(prefix=prefix, dir=self._folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk shows again when what is buffered is written out
                file.close()
        shutil.rmtree(self._working, ignore_errors=True)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Add rows to the array `name`, which starts with the first call.

        Raises:
            ValueError: The rows differ in shape or dtype from those before.
            StorageError: They cannot be written.
        """
        row = (rows.shape[1:], rows.dtype)
        if self._row.setdefault(name, row) != row:
            (shape, dtype), (seen, seen_dtype) = self._row[name], row
            raise ValueError(f"{name} began with rows {shape} {dtype}, now got {seen} {seen_dtype}")
        with _storage(self._folder):
            if name not in self._files:
                self._files[name] = (self._working / name).open("w+b")
            self._files[name].write(np.ascontiguousarray(rows).data)
        self._rows[name] = self._rows.get(name, 0) + len(rows)

    def save(self, path: Path, metadata: Mapping[str, str], format: Format) -> None:
        """Write all arrays to one file, which appears under its name whole or not at all.

        Args:
            path: The file; its folder is made if need be, a file of that name is replaced.
            metadata: Text by name: in the header of a safetensors file; in an npz file, JSON in the array `metadata`.
            format: "safetensors" or "npz".

        Raises:
            ValueError: Nothing was appended.
            StorageError: The file cannot be written.
        """
        if not self._files:
            raise ValueError("there is nothing to save: no frames were read")
        with _storage(self._folder):
            assembled = self._working / "assembled"
            with assembled.open("xb") as file:
                (self._write_safetensors if format == "safetensors" else self._write_npz)(file, metadata)
                file.flush()
                os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            assembled.replace(path)
            sync(path.parent)

    def _shape(self, name: str) -> tuple[int, ...]:
        return (self._rows[name], *self._row[name][0])

    def _copy(self, name: str, out: IO[bytes]) -> None:
        """Copy one array out, then let go of its space."""
        file = self._files[name]
        file.seek(0)
        shutil.copyfileobj(file, out, _BLOCK)
        file.truncate(0)

    def _write_safetensors(self, file: IO[bytes], metadata: Mapping[str, str]) -> None:
        # Widest numbers first keeps every array aligned, as the library's own writer does.
        names = sorted(self._files, key=lambda name: (-self._row[name][1].itemsize, name))
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        end = 0
        for name in names:
            start, end = end, end + math.prod(self._shape(name)) * self._row[name][1].itemsize
            code = _CODES[self._row[name][1].name]
            header[name] = {"dtype": code, "shape": self._shape(name), "data_offsets": [start, end]}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            self._copy(name, file)

    def _write_npz(self, file: IO[bytes], metadata: Mapping[str, str]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(zipfile.ZipInfo("metadata.npy"), "w") as entry:
                np.save(entry, np.array(json.dumps(dict(metadata), ensure_ascii=False)), allow_pickle=False)
            for name in sorted(self._files):
                header = {
                    "descr": np.lib.format.dtype_to_descr(self._row[name][1]),
                    "fortran_order": False,
                    "shape": self._shape(name),
                }
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_1_0(entry, header)
                    self._copy(name, entry)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what an extracted file says of itself, checking cheaply that the file is whole; no array is read.

    Args:
        path: A `.safetensors` or `.npz` file.

    Returns:
        Text by name; values that are more than one word or number are JSON.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, damaged, or holds no such metadata.
    """
    path = Path(path)
    if path.suffix != ".npz":
        from midway_hub.hub.weight_files import check_safetensors

        return check_safetensors(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open("metadata.npy") as entry:
            metadata = json.loads(str(np.lib.format.read_array(entry, allow_pickle=False)))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is truncated, damaged, or not an extracted file: {error}") from error
    return metadata


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of processes that were killed; those of live ones and of other hosts stay."""
    for path in folder.glob(f"{_PREFIX}-*"):
        name = _WORKING.fullmatch(path.name)
        if name is None:
            continue
        if name["host"] != _HOST:
            logger.warning("%s belongs to a process on %s; remove it if that one is dead", path, name["host"])
        elif not _lives(int(name["pid"]), name["process"]):
            shutil.rmtree(path, ignore_errors=True)


def _lives(pid: int, process: str) -> bool:
    if pid == os.getpid():
        return process == _PROCESS
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, but alive
        return True
    return True


@contextlib.contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Say where writing failed, and that what is finished is safe."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            error.errno,
            f"could not write to {folder}: {error.strerror or error}. Finished files are whole; "
            f"make room or choose another folder, and run again to go on",
        ) from error
