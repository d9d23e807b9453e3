"""Finding the files of a data set, with errors that say what is there instead."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

from midway_hub.extraction.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source, find_sources


def find_videos(path: Path, pattern: str = "*") -> list[tuple[str, str]]:
    """Find the videos of a folder (with all folders below it), a `.txt` list, or one video.

    Args:
        path: The folder, list or video.
        pattern: Which to take: matched against the end of the path below the folder, e.g. `*.mov`, `day/*.mp4`.

    Returns:
        (name, path) of each, in a fixed order.

    Raises:
        FileNotFoundError: `path`, or an entry of the list, does not exist.
        ValueError: There is no video, or none that matches; the message says what extensions were seen.
    """
    items = _find(path, "video", VIDEO_SUFFIXES)
    found = [(item.name, str(item.paths[0])) for item in items if PurePosixPath(item.name).match(pattern)]
    if not found:
        others = Counter(PurePosixPath(item.name).suffix.lower() for item in items)
        raise ValueError(f"no video of {path} matches data.pattern={pattern!r}; there are {_counted(others)}")
    return found


def find_frame_folders(path: Path, pattern: str = "*") -> list[tuple[str, list[str]]]:
    """Find the folders of decoded frames: `path` itself if it holds images, and all folders below it that do.

    Args:
        path: A folder.
        pattern: Which images to take, e.g. `frame_*.png`.

    Returns:
        (folder relative to `path`, image file names in the order of their numbers) of each, sorted.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no folder, there is no image in it, or none that matches.
    """
    if path.is_file():
        raise ValueError(f"{path} is a file; data.source=frames wants a folder of images (data.source=videos reads it)")
    folders: dict[str, list[str]] = {}
    for item in map(PurePosixPath, (item.name for item in _find(path, "image", IMAGE_SUFFIXES))):
        if item.match(pattern):
            folders.setdefault(item.parent.as_posix(), []).append(item.name)
    if not folders:
        raise ValueError(f"no image of {path} matches data.pattern={pattern!r}; it holds {_counted(_extensions(path))}")
    return [(folder, sorted(folders[folder], key=by_number)) for folder in sorted(folders)]


def by_number(name: str) -> tuple[int, str]:
    """Sort key of a frame's file name: its number, so that `frame_1000000` comes after `frame_999999`."""
    number = frame_number(name)
    return (-1 if number is None else number, name)


def frame_number(name: str) -> int | None:
    """Return the last digits of a file name's stem as a number, None if there are none."""
    stem = PurePosixPath(name).stem
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits) if digits else None


def hash_files(files: Iterable[tuple[str, str]]) -> str:
    """Return a hash of the files' names and sizes, which finds added, missing and cut-off files without reading them.

    Args:
        files: (name, path) of each.
    """
    digest = hashlib.sha256()
    for name, path in files:
        try:
            size = Path(path).stat().st_size
        except OSError:
            size = -1
        digest.update(f"{name}\0{size}\n".encode())
    return digest.hexdigest()


def _find(path: Path, kind: Literal["image", "video"], suffixes: tuple[str, ...]) -> tuple[Source, ...]:
    if not path.exists():
        raise FileNotFoundError(f"data.path: there is no {path} (looked for {path.absolute()})")
    try:
        return find_sources(path, kinds=(kind,)).items
    except ValueError:
        if not path.is_dir():
            raise
        seen = _extensions(path)
        if not seen:
            raise ValueError(f"folder {path} is empty; data.path wants a folder with {kind}s") from None
        wanted = f"{kind}s ({' '.join(suffixes)})"
        raise ValueError(f"folder {path} holds no {wanted}; it holds {_counted(seen)}{_other_source(seen)}") from None


def _extensions(folder: Path) -> Counter[str]:
    names = (name for _, _, files in os.walk(folder) for name in files if not name.startswith("."))
    return Counter(PurePosixPath(name).suffix.lower() for name in names)


def _counted(extensions: Counter[str]) -> str:
    kinds = [f"{count} {suffix or 'without extension'}" for suffix, count in extensions.most_common(6)]
    return ", ".join(kinds) + (", ..." if len(extensions) > 6 else "") if kinds else "no files"


def _other_source(seen: Counter[str]) -> str:
    if any(suffix in IMAGE_SUFFIXES for suffix in seen):
        return "; data.source=frames reads decoded frames"
    if any(suffix in VIDEO_SUFFIXES for suffix in seen):
        return "; data.source=videos reads videos"
    return "; data.source=pack reads packs" if ".tar" in seen else ""
