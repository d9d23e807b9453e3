"""What is given as a file is a file: a FIFO or a device has no end, and opening one may wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class IrregularFileError(OSError):
    """A path names a pipe, a device or a socket where a file is wanted."""


def refuse_irregular(path: str | os.PathLike[str]) -> None:
    """Refuse to open what is no regular file.

    Args:
        path: What is about to be opened. What does not exist, and folders, are for the caller to refuse.

    Raises:
        IrregularFileError: A pipe, a device or a socket.
    """
    path = Path(path)
    try:
        kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # no such file, or a name that cannot be one: whoever opens it says so
        return
    if kind is not None:
        raise IrregularFileError(
            f"{path} is {kind}; wanted a regular file. Write what it gives to a file, and pass that: "
            f"`cat {path} > FILE`"
        )
