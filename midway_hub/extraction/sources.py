"""Which images and videos an extraction works on, and what the output of each is called."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from midway_hub._regular import refuse_irregular
from midway_hub.extraction.lists import read_list
from midway_hub.frame_names import natural_path_key

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)
LIST_SUFFIX = ".txt"
SHOWN_SUFFIXES = 6

Kind = Literal["image", "video", "pair"]
StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Source:
    """What one output file is made from.

    Attributes:
        paths: The image or video; for a pair the two images.
        name: Path of the output below the output folder, without the output's own suffix: `day/clip.mp4`.
        kind: What it is.
    """

    paths: tuple[Path, ...]
    name: str
    kind: Kind

    def __str__(self) -> str:
        return " and ".join(map(str, self.paths))


@dataclass(frozen=True)
class LeftOut:
    """What was not taken, which people may not expect.

    Attributes:
        files: Files in folders that are of no kind that was looked for: how many of each extension.
        comments: Lines of lists that were passed over as comments.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    comments: int = 0

    def __str__(self) -> str:
        """In words, such as `left out 9 files (6 .vob, 3 .txt)`; empty for nothing."""
        kinds = Counter(self.files).most_common()
        shown = ", ".join(f"{count} {suffix or 'without extension'}" for suffix, count in kinds[:SHOWN_SUFFIXES])
        more = ", ..." if len(kinds) > SHOWN_SUFFIXES else ""
        files = f"left out {sum(self.files.values())} files ({shown}{more})" if kinds else ""
        lines = f"passed over {self.comments} lines of lists as comments" if self.comments else ""
        return "; ".join(filter(None, (files, lines)))


@dataclass(frozen=True)
class Sources:
    """What was found.

    Attributes:
        items: Sources in a fixed order: that of the inputs, folders in natural order (`midway_hub.frame_names`).
        left_out: What was not taken.
    """

    items: tuple[Source, ...]
    left_out: LeftOut = LeftOut()

    @property
    def ignored(self) -> int:
        """Files in folders that were left out because of their extension."""
        return sum(self.left_out.files.values())


def find_sources(inputs: StrPath | Sequence[StrPath], *, kinds: Sequence[Kind] = ("image", "video")) -> Sources:
    """Find the images and videos among files, folders and lists.

    A folder is searched with all folders below it; hidden files are passed over. A `.txt` file is a list with one path
    per line, relative to the list's own folder, as `midway_hub.extraction.lists.read_list` reads it.

    Args:
        inputs: Image files, video files, folders, `.txt` lists.
        kinds: What to look for.

    Returns:
        The sources; each is named after its path relative to the folder or list that it was found through.

    Raises:
        FileNotFoundError: An input or an entry of a list does not exist.
        ValueError: No inputs, an empty folder or list, a file of unknown extension, or two files whose outputs would
            have one name; the message names them.
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not inputs:
        raise ValueError(f"no inputs; pass {_wanted(kinds)}, folders of them, or a {LIST_SUFFIX} list")
    items: list[Source] = []
    left_out, comments = Counter[str](), 0
    for path in map(Path, inputs):
        if path.is_dir():
            found, others = _in_folder(path, kinds)
            left_out += others
        elif path.suffix.lower() == LIST_SUFFIX and path.exists():
            found, passed_over = _in_list(path, kinds)
            comments += passed_over
        else:
            found = [_file(path, path.name, kinds)]
        items += found
    return Sources(_without_collisions(items), LeftOut(left_out, comments))


def find_motion_sources(inputs: StrPath | Sequence[StrPath]) -> Sources:
    """Find what motion can be inferred from: exactly two images (one pair), or videos as `find_sources` finds them.

    Raises:
        FileNotFoundError: As `find_sources`.
        ValueError: Images other than exactly two; and as `find_sources`.
    """
    paths = [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(path) for path in inputs]
    images = [path for path in paths if _kind(path) == "image"]
    if not images:
        return find_sources(paths, kinds=("video",))
    if len(images) != 2 or len(paths) != 2:
        raise ValueError(f"motion takes videos, or exactly two images; got {len(images)} images of {len(paths)} inputs")
    pair = tuple(_file(path, path.name, ("image",)).paths[0] for path in images)
    return Sources((Source(pair, f"{pair[0].name}--{pair[1].name}", "pair"),))


def _in_folder(folder: Path, kinds: Sequence[Kind]) -> tuple[list[Source], Counter[str]]:
    files = sorted(((path, path.relative_to(folder).as_posix()) for path in _walk(folder)), key=_natural)
    found, left_out = [], Counter[str]()
    for path, name in files:
        kind = _kind(path)
        if kind is not None and kind in kinds:
            found.append(Source((path,), name, kind))
        else:
            left_out[path.suffix.lower()] += 1
    if not found:
        raise ValueError(f"folder {folder} holds no {_wanted(kinds)} ({len(files)} other files)")
    return found, left_out


def _natural(item: tuple[Path, str]) -> tuple[Any, ...]:
    return natural_path_key(item[1])


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _in_list(listing: Path, kinds: Sequence[Kind]) -> tuple[list[Source], int]:
    entries, comments = read_list(listing)
    found = []
    for entry in entries:
        written = Path(entry.written)
        below = not written.is_absolute() and ".." not in written.parts and entry.path == listing.parent / written
        name = written.as_posix() if below else entry.path.name
        found.append(_file(entry.path, name, kinds, where=f"{listing}, line {entry.line}: "))
    if not found:
        passed = f" ({comments} lines are comments)" if comments else ""
        raise ValueError(f"list {listing} is empty: wanted one path per line, relative to the list's folder{passed}")
    return found, comments


def _file(path: Path, name: str, kinds: Sequence[Kind], *, where: str = "") -> Source:
    if not path.exists():
        raise FileNotFoundError(f"{where}there is no file {path}")
    refuse_irregular(path)
    kind = _kind(path)
    if path.is_dir() or kind is None or kind not in kinds:
        suffixes = [*(IMAGE_SUFFIXES if "image" in kinds else ()), *(VIDEO_SUFFIXES if "video" in kinds else ())]
        seen = "a folder" if path.is_dir() else f"of type {path.suffix!r}"
        raise ValueError(f"{where}{path} is {seen}; wanted {_wanted(kinds)} ({' '.join(suffixes)})")
    return Source((path,), name, kind)


def _kind(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def _without_collisions(items: Iterable[Source]) -> tuple[Source, ...]:
    """Drop files that were found twice, refuse different files whose outputs would have one name."""
    kept: dict[str, Source] = {}
    for item in items:
        # The usual file systems of these platforms take clip.mp4 and Clip.MP4 for one file.
        key = item.name.casefold() if sys.platform in ("darwin", "win32") else item.name
        first = kept.setdefault(key, item)
        if first is not item and first.paths[0].resolve() != item.paths[0].resolve():
            raise ValueError(
                f"{first} and {item} would both be written to {item.name}.*; run them with different output folders, "
                f"or pass the folder above both"
            )
    return tuple(kept.values())


def _wanted(kinds: Sequence[Kind]) -> str:
    return " or ".join(f"{kind}s" for kind in kinds)


def _raise(error: OSError) -> None:
    raise error
