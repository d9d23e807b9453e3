"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from midway_hub._durable import sync

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OSError):
    """Nothing more can be written: the disk is full, or a quota or size limit is reached."""


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and have it on the disk before returning."""
    with path.open("wb") as file:
        file.write(data)
    sync(path)


def replace_text(path: Path, text: str) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        write_bytes(beside, text.encode())
        beside.replace(path)
        sync(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise as_disk_full(error, path.parent) from error


def as_disk_full(error: OSError, folder: Path) -> OSError:
    """Return the error, as a `DiskFullError` that says what to do if that is what it means."""
    if error.errno not in _NO_SPACE or isinstance(error, DiskFullError):
        return error
    free = shutil.disk_usage(folder).free / 2**20
    return DiskFullError(
        error.errno,
        f"{error.strerror}: {folder} has {free:.0f} MiB free. Free space there (or raise the quota or file size limit) "
        "and start the same command again: it goes on from the last checkpoint",
    )
