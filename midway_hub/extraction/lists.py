"""Lists of files: text with one path per line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from midway_hub._regular import refuse_irregular

COMMENT = "#"
_LINES = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Entry:
    """A line that names a file.

    Attributes:
        line: Its number, from 1.
        written: The path as it is written, without what surrounds it.
        path: Where that is; it may not exist.
    """

    line: int
    written: str
    path: Path


def read_list(listing: Path) -> tuple[list[Entry], int]:
    """Read a list of files in UTF-8, with or without a byte order mark, of any line ends.

    A line that is the name of an existing file is that file, whatever it begins with or is surrounded by. Of others,
    blanks at the ends and quotes around the path are left out; empty ones, and those that begin with `#`, are passed
    over.

    Args:
        listing: The list; its paths are relative to its own folder, and `~` is the home folder.

    Returns:
        The entries in order, and how many comments were passed over.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no UTF-8 text.
    """
    entries, comments = [], 0
    for number, line in enumerate(lines_of(listing), start=1):
        if not line.strip():
            continue
        written = next((form for form in _forms(line) if _is_file(listing.parent, form)), None)
        if written is None and line.lstrip().startswith(COMMENT):
            comments += 1
            continue
        written = _forms(line)[-1] if written is None else written
        entries.append(Entry(number, written, _place(listing.parent, written)))
    return entries, comments


def lines_of(listing: Path) -> list[str]:
    """Return the lines of a text in UTF-8, with or without a byte order mark, of any line ends.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no UTF-8 text.
    """
    refuse_irregular(listing)
    try:
        return _LINES.split(listing.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"list {listing} is not UTF-8 text: {error}") from None


def _forms(line: str) -> list[str]:
    """What a line may mean, from the letter to the plain path."""
    bare = line.strip()
    quoted = len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'"
    return list(dict.fromkeys([line, bare, bare[1:-1] if quoted else bare]))


def _place(folder: Path, written: str) -> Path:
    path = folder / written
    return Path(written).expanduser() if written.startswith("~") and not path.exists() else path


def _is_file(folder: Path, written: str) -> bool:
    try:
        return _place(folder, written).is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, or a NUL; no such home
        return False
