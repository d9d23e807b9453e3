"""Files that this package wrote itself, read back: a damaged one is one sentence that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class DamagedFileError(ValueError):
    """A file is not as it was written, as after a power cut; the message names it and says what to do."""


def read_json(path: Path, remedy: str, *, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: The file.
        remedy: What to do when it is damaged: the end of the error.
        keys: What it must hold.

    Raises:
        DamagedFileError: It holds no JSON object, or one without a key.
        OSError: It is not there, or may not be read.
    """
    raw = path.read_bytes()
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, _what_is_wrong(raw, error), remedy) from None
    return need_keys(value, path, remedy, keys)


def need_keys(value: Any, path: Path, remedy: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a file holds, if that is a mapping with these keys.

    Raises:
        DamagedFileError: It is none.
    """
    if not isinstance(value, dict):
        seen = "nothing" if value is None else f"a {type(value).__name__}"
        raise damaged(path, f"it holds {seen}, no mapping", remedy)
    missing = [key for key in keys if key not in value]
    if missing:
        raise damaged(path, f"it has no {' and no '.join(map(repr, missing))}", remedy)
    return value


def damaged(path: Path, seen: str, remedy: str) -> DamagedFileError:
    """Return the error about a damaged file."""
    return DamagedFileError(f"{path} is damaged: {seen}; {remedy}")


def _what_is_wrong(raw: bytes, error: Exception) -> str:
    if not raw.strip():
        return "it is empty"
    if not raw.strip(b"\0"):
        return f"it is {len(raw)} zero bytes"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "it is nested too deeply"
