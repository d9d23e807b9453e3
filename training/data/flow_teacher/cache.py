"""Flow on disk by what it was computed from: shared by processes, bounded, damaged files computed anew."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub._durable import whole_file

_CHECK_EVERY = 64
"""Files written between two looks at the size of the folder."""


class FlowCache:
    """A folder of flow fields, float16, named by the frames' bytes.

    Args:
        folder: Made if it is not there.
        teacher: What identifies the teacher, JSON-able: a folder serves one.
        limit: Bytes that it may hold.

    Attributes:
        hits: Fields that were found.
        misses: Fields that were computed.

    Raises:
        ValueError: The folder belongs to another teacher.
    """

    def __init__(self, folder: Path, teacher: Mapping[str, Any], *, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.hits = self.misses = 0
        folder.mkdir(parents=True, exist_ok=True)
        said, known = json.dumps(teacher, sort_keys=True, indent=2) + "\n", folder / "teacher.json"
        if not known.is_file():
            if any(folder.glob("*/*.npy")):
                raise ValueError(f"{folder} holds flow, but no teacher.json that says whose: choose another cache")
            with whole_file(known) as beside:
                beside.write_text(said, encoding="utf-8")
        elif (found := known.read_text(encoding="utf-8")) != said:
            theirs = json.loads(found).get("kind", "another one")
            raise ValueError(
                f"the cache {folder} was written by another flow teacher ({theirs}, see {known}), not by "
                f"{teacher.get('kind', teacher)}: give each its own data.flow.cache, or delete the folder"
            )

    def get(self, first: np.ndarray, second: np.ndarray, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the flow (2, H, W) float32 between two frames, rounded to 16 bits whether it was there or not."""
        path = self._path(first, second)
        try:
            stored = np.load(path, allow_pickle=False)
            if stored.shape == (2, *first.shape[:2]) and stored.dtype == np.float16:
                self.hits += 1
                with suppress(OSError):
                    os.utime(path)
                return stored.astype(np.float32)
        except (OSError, ValueError, EOFError):
            pass  # not there, or damaged
        self.misses += 1
        limits = np.finfo(np.float16)
        stored = compute().clip(limits.min, limits.max).astype(np.float16)
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as beside:
            np.save(beside, stored)
        if self.misses % _CHECK_EVERY == 1:
            self._make_room()
        return stored.astype(np.float32)

    def _path(self, first: np.ndarray, second: np.ndarray) -> Path:
        digest = hashlib.sha256(repr(first.shape).encode())
        for frame in (first, second):
            digest.update(np.ascontiguousarray(frame).data)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.npy"

    def _make_room(self) -> None:
        files = []
        for path in self.folder.glob("*/*.npy"):
            with suppress(OSError):  # another process may have deleted it
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= self.limit:
                return
            path.unlink(missing_ok=True)
            held -= size
