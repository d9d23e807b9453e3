"""One job per run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

_log = logging.getLogger("midway_hub")
_HELD = {errno.EACCES, errno.EAGAIN}


class RunDirectoryInUseError(RuntimeError):
    """Another job holds the run directory."""


class Lock:
    """A lock that ends with its process, however that ends: what a dead one left behind is no obstacle.

    POSIX record locks belong to a process, so that loader workers which outlive a killed one do not hold on to it; they
    work between the machines of a cluster where its file system has locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write who holds it.

        Raises:
            RunDirectoryInUseError: Another process has it; the message says which and where.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if error.errno in _HELD:
                raise RunDirectoryInUseError(self._in_use(holder)) from error
            _log.warning(
                "%s: this file system has no locks (%s); see to it that one job at a time uses it", self._path, error
            )
            return
        self._descriptor = descriptor
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode(), 0)

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _in_use(self, holder: bytes) -> str:
        try:
            facts = json.loads(holder)
            who = f"process {facts['pid']} on {facts['host']} since {facts['since']}"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        return f"{self._path.parent} is in use by {who}: wait for it, stop it, or choose another run directory"
