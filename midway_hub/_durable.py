"""What is written survives a crash of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from midway_hub.file_names import fitting


def sync(path: Path) -> None:
    """Have the operating system write a file, or the names in a folder, to the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def need_folder(path: Path) -> None:
    """Raise a FileNotFoundError where there is no folder to write a file into."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")


def need_empty(folder: Path) -> None:
    """Raise a FileExistsError where there is something already, other than an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; choose another folder or remove it first")


@contextmanager
def no_empty_folder(path: Path) -> Iterator[None]:
    """Remove `path`, and the folders above it, if the block makes them and ends with nothing in them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # it holds something, or was not made
                folder.rmdir()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes that name when the block ends well, else it is deleted.

    The ending stays, for writers that go by it.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    need_folder(path)
    beside = path.with_name(fitting(f".{path.stem}", f".{os.getpid()}.partial{path.suffix}", path.parent))
    try:
        yield beside
        sync(beside)
        beside.replace(path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)
