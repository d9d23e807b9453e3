"""Finding the files of a data set, with errors that say what is there instead."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from midway_hub.extraction.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source, find_sources
from midway_hub.frame_names import Series, series_of

logger = logging.getLogger("midway_hub")


def find_videos(path: Path, pattern: str = "*") -> list[tuple[str, str]]:
    """Find the videos of a folder (with all folders below it), a `.txt` list, or one video; say what was left out.

    Args:
        path: The folder, list or video.
        pattern: Which to take: matched against the end of the path below the folder, e.g. `*.mov`, `day/*.mp4`.

    Returns:
        (name, path) of each; those of a folder in the order of their names as text, which runs go on with.

    Raises:
        FileNotFoundError: `path`, or an entry of the list, does not exist.
        ValueError: There is no video, or none that matches; the message says what extensions were seen.
    """
    items = _find(path, "video", VIDEO_SUFFIXES)
    if path.is_dir():
        items = tuple(sorted(items, key=lambda item: PurePosixPath(item.name)))
    found = [(item.name, str(item.paths[0])) for item in items if PurePosixPath(item.name).match(pattern)]
    if not found:
        others = Counter(PurePosixPath(item.name).suffix.lower() for item in items)
        raise ValueError(f"no video of {path} matches data.pattern={pattern!r}; there are {_counted(others)}")
    return found


class FrameFolder(NamedTuple):
    """Decoded frames of one video.

    Attributes:
        folder: Where they are, relative to the folder that was searched.
        names: Of the files, in order.
        name: What the video is called: the folder, and where it holds several, the form of the names: `day/left_*.png`.
        series: The numbers in the names.
    """

    folder: str
    names: list[str]
    name: str
    series: Series


def find_frame_folders(path: Path, pattern: str = "*") -> list[FrameFolder]:
    """Find the folders of decoded frames: `path` itself if it holds images, and all folders below it that do.

    Frames are in natural order. Those of several videos in one folder, such as two cameras', are told apart by their
    names (`midway_hub.frame_names.series_of`); files named unlike all others are left out with a warning.

    Args:
        path: A folder.
        pattern: Which images to take, e.g. `frame_*.png`.

    Returns:
        The videos; folders sorted as text, videos of one folder in natural order.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is no folder, there is no image in it or none that matches, or names give no order.
    """
    if path.is_file():
        raise ValueError(f"{path} is a file; data.source=frames wants a folder of images (data.source=videos reads it)")
    folders: dict[str, list[str]] = {}
    for item in map(PurePosixPath, (item.name for item in _find(path, "image", IMAGE_SUFFIXES))):
        if item.match(pattern):
            folders.setdefault(item.parent.as_posix(), []).append(item.name)
    if not folders:
        raise ValueError(f"no image of {path} matches data.pattern={pattern!r}; it holds {_counted(_extensions(path))}")
    return [video for folder in sorted(folders) for video in _videos_of(path, folder, folders[folder])]


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


def _videos_of(path: Path, folder: str, names: list[str]) -> list[FrameFolder]:
    """Tell the videos of a folder apart."""
    try:
        found, strays = series_of(names)
    except ValueError as error:
        raise ValueError(f"folder {path / folder}: {error}, or choose files with data.pattern") from None
    if strays:
        shown = ", ".join(strays[:3])
        logger.warning("%s: %d files are named unlike the frames and left out: %s", path / folder, len(strays), shown)
    if len(found) > 1:
        forms = ", ".join(f"{series.form} ({len(series.names)})" for series in found[:4])
        logger.info("%s holds %d videos: %s", path / folder, len(found), forms)
        return [FrameFolder(folder, [*item.names], f"{folder}/{item.form}", item) for item in found]
    return [FrameFolder(folder, [*item.names], folder, item) for item in found]


def _find(path: Path, kind: Literal["image", "video"], suffixes: tuple[str, ...]) -> tuple[Source, ...]:
    if not path.exists():
        raise FileNotFoundError(f"data.path: there is no {path} (looked for {path.absolute()})")
    try:
        found = find_sources(path, kinds=(kind,))
    except ValueError:
        if not path.is_dir():
            raise
        seen = _extensions(path)
        if not seen:
            raise ValueError(f"folder {path} is empty; data.path wants a folder with {kind}s") from None
        wanted = f"{kind}s ({' '.join(suffixes)})"
        raise ValueError(f"folder {path} holds no {wanted}; it holds {_counted(seen)}{_other_source(seen)}") from None
    if str(found.left_out):
        logger.warning("%s: %s", path, found.left_out)
    return found.items


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
