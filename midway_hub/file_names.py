"""Names of files that are made from other names, none longer than the file system takes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

USUAL_LIMIT = 255
"""Bytes of a name on the common file systems; some take fewer."""
HASH_DIGITS = 10
LONGEST_ENDING = 16
"""Bytes up to which what follows a name's last dot is its ending."""


def fitting(name: str, ending: str, folder: Path) -> str:
    """Append an ending to a name, which is shortened where the whole would be too long for a folder.

    A shortened name keeps its beginning and its own ending, and a hash of the whole between them makes it another for
    every name: the same name always becomes the same.

    Args:
        name: Without folders, such as `clip.mp4`.
        ending: What is appended, such as `.safetensors`.
        folder: Where the file is to be.

    Returns:
        `clip.mp4.safetensors`, or where that is too long `BEGINNING~0123456789.mp4.safetensors`.
    """
    limit = _limit(folder)
    if len(os.fsencode(name + ending)) <= limit:
        return name + ending
    own = Path(name).suffix
    if len(os.fsencode(own)) <= LONGEST_ENDING:
        ending, stem = own + ending, name.removesuffix(own)
    else:
        stem = name
    kept = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:HASH_DIGITS] + ending
    room = max(0, limit - len(os.fsencode(kept)))
    return os.fsencode(stem)[:room].decode("utf-8", "ignore") + kept


def _limit(folder: Path) -> int:
    """Bytes of the longest name in a folder."""
    try:
        return min(USUAL_LIMIT, os.pathconf(folder, "PC_NAME_MAX"))
    except (AttributeError, OSError, ValueError):  # not on Windows; no such folder yet; unknown to the system
        return USUAL_LIMIT
