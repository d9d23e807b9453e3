"""Finding the numbered frames and flows of sequences, and which of them make pairs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; none where there is no such folder."""
    return sorted(entry.name for entry in entries_of(folder) if entry.is_dir() and not entry.name.startswith("."))


def numbered(folder: Path, pattern: str) -> dict[int, str]:
    """Return the files of a folder whose whole name matches, by the number that is the pattern's first group."""
    form = re.compile(pattern)
    matches = (form.fullmatch(entry.name) for entry in entries_of(folder))
    return {int(match[1]): match.string for match in matches if match}


def starts_of_pairs(
    images: Iterable[int], flows: Iterable[int], *, towards: int = 1, last_has_flow: bool = False
) -> list[int]:
    """Return the frames of one sequence that a flow starts from.

    A pair counts if its flow is there or both of its frames are, so that what is missing of it can be named.

    Args:
        images: Numbers of the frames.
        flows: Numbers of the frames with flow.
        towards: From a frame to its partner: 1 for the next, -1 for the one before.
        last_has_flow: Whether the data set has a flow for the frame without partner too.
    """
    images, flows = set(images), set(flows)
    known = images | flows
    within = range(min(known), max(known) + 1) if known else range(0)
    by_flow = {number for number in flows if not last_has_flow or number + towards in within}
    return sorted(by_flow | {number for number in images if number + towards in images})
