"""Files that are hashed once: the digest is remembered until the file's size or time stamp changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

logger = logging.getLogger("midway_hub")

Algorithm = Literal["sha256", "git-sha1"]
_BLOCK = 1 << 20


def cache_root(cache_dir: Path | None) -> Path:
    """Locate the folder of what this package keeps beside the Hub's own cache; it need not exist.

    Args:
        cache_dir: The user's choice of cache, or None for the assets cache of huggingface_hub.

    Returns:
        The folder.
    """
    return Path(constants.HF_ASSETS_CACHE if cache_dir is None else cache_dir).expanduser().absolute() / "midway_hub"


def digest(path: Path, root: Path, algorithm: Algorithm = "sha256") -> str:
    """Give a file's digest, hashing it only if it changed since it was last hashed.

    Args:
        path: The file; links are followed.
        root: What `cache_root` returns. A folder that cannot be written costs a hash each time and nothing else.
        algorithm: `"sha256"`, or `"git-sha1"` for the id that git gives the content.

    Returns:
        Lower-case hexadecimal digest.
    """
    real = Path(os.path.realpath(path))
    record_path = _record_path(real, root, algorithm)
    before = _state(real)
    record = read_json(record_path)
    if record is not None and record.get("file") == before and isinstance(record.get("digest"), str):
        return record["digest"]
    value = hash_file(real, algorithm)
    if _state(real) == before:
        write_json(record_path, {"file": before, "algorithm": algorithm, "digest": value})
    return value


def remembered(path: Path, root: Path) -> str | None:
    """Give the digest that a file had when it was last hashed, whatever it holds now.

    Args:
        path: The file; links are followed.
        root: What `cache_root` returns.

    Returns:
        Lower-case hexadecimal digest, by preference the sha256, or None if it was never hashed.
    """
    real = Path(os.path.realpath(path))
    record = read_json(_record_path(real, root, "sha256")) or read_json(_record_path(real, root, "git-sha1"))
    return record.get("digest") if record else None


def forget(path: Path, root: Path) -> None:
    """Drop what is remembered of a file.

    Args:
        path: The file; links are followed.
        root: What `cache_root` returns.
    """
    for algorithm in ("sha256", "git-sha1"):
        with contextlib.suppress(OSError):
            _record_path(Path(os.path.realpath(path)), root, algorithm).unlink()


def hash_file(path: Path, algorithm: Algorithm = "sha256") -> str:
    """Hash a file.

    Args:
        path: The file.
        algorithm: `"sha256"`, or `"git-sha1"` for the id that git gives the content.

    Returns:
        Lower-case hexadecimal digest.
    """
    hasher = hashlib.sha256() if algorithm == "sha256" else hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        if algorithm == "git-sha1":
            hasher.update(f"blob {os.fstat(file.fileno()).st_size}\0".encode())
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Read one of the cache's own records.

    Args:
        path: The record.

    Returns:
        Its content, or None if it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one of the cache's own records, whole or not at all; a cache that cannot be written is left as it is.

    Args:
        path: The record.
        content: What it says.
    """
    # Not the tempfile module: its files are for their owner alone, and a cache may be shared by several users.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        logger.debug("could not write %s: %s", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _record_path(path: Path, root: Path, algorithm: Algorithm) -> Path:
    return root / "digests" / f"{hashlib.sha256(f'{algorithm}:{path}'.encode()).hexdigest()[:32]}.json"
