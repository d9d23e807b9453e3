"""What flow can be estimated of: pairs of images, videos, folders of frames, and lists of these."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midway_hub.extraction.sources import IMAGE_SUFFIXES, LIST_SUFFIX, VIDEO_SUFFIXES

RECORD = "flow.json"
"""Marks folders that flow was written into: they are passed over where flow is estimated of what lies around them."""
WANTED = f"exactly two images, videos, folders of frames, or {LIST_SUFFIX} lists with two images (or one video) a line"


@dataclass(frozen=True)
class FlowSource:
    """Frames that follow each other, or pairs of images.

    Attributes:
        name: What it is called below an output folder: `day/clip.mp4`; "" for the folder itself.
        clip: A video, or a folder of frames.
        pairs: Pairs of images, where there is no clip.
    """

    name: str
    clip: Path | None = None
    pairs: tuple[tuple[Path, Path], ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files that it is made of."""
        if self.clip is None:
            return [path for pair in self.pairs for path in pair]
        return (
            sorted(path for path in self.clip.iterdir() if _is(path, IMAGE_SUFFIXES))
            if self.clip.is_dir()
            else [self.clip]
        )

    def __str__(self) -> str:
        return str(self.clip) if self.clip else f"{len(self.pairs)} pairs of images"


def find_flow_sources(inputs: Sequence[str | os.PathLike[str]]) -> list[FlowSource]:
    """Find what flow is to be estimated of.

    Two images are a pair. A folder that holds images is a clip of frames, in the order of their numbers, and every
    video below a folder is one, too. A line of a `.txt` list names two images, which a tab or spaces part, or one video
    or folder of frames; paths are relative to the list. Empty lines, and those that start with `# `, are passed over.

    Returns:
        The sources in the order of the inputs, folders sorted. One alone has no name.

    Raises:
        FileNotFoundError: An input, or an entry of a list, does not exist.
        ValueError: Anything else, nothing in a folder or a list, or two sources of one name.
    """
    paths = [Path(path) for path in inputs]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
    images = [path for path in paths if _is(path, IMAGE_SUFFIXES)]
    if images:
        if len(images) != 2 or len(paths) != 2:
            raise ValueError(f"flow takes {WANTED}; got {len(images)} images of {len(paths)} inputs")
        return [FlowSource("", pairs=((paths[0], paths[1]),))]
    found = [source for path in paths for source in _found(path)]
    if not found:
        raise ValueError(f"no inputs; flow takes {WANTED}")
    names = [source.name for source in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two inputs would be called {doubled[0]} in the output; run them with different output folders"
        )
    if len(found) == 1:
        return [FlowSource("", found[0].clip, found[0].pairs)]
    return found


def _found(path: Path) -> Iterator[FlowSource]:
    if path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() == LIST_SUFFIX:
        yield from _in_list(path)
    elif _is(path, VIDEO_SUFFIXES):
        yield FlowSource(path.name, path)
    else:
        raise ValueError(f"{path} is of type {path.suffix!r}; flow takes {WANTED}")


def _in_folder(folder: Path) -> Iterator[FlowSource]:
    found = False
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and not Path(parent, name, RECORD).exists())
        here = [Path(parent, name) for name in sorted(files) if name[0] != "."]
        below = Path(parent).relative_to(folder)
        if sum(_is(path, IMAGE_SUFFIXES) for path in here) > 1:
            found = True
            yield FlowSource(folder.resolve().name if below == Path() else below.as_posix(), Path(parent))
        for video in (path for path in here if _is(path, VIDEO_SUFFIXES)):
            found = True
            yield FlowSource((below / video.name).as_posix(), video)
    if not found:
        raise ValueError(f"folder {folder} holds no videos and no folder of two images or more; flow takes {WANTED}")


def _in_list(listing: Path) -> Iterator[FlowSource]:
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"list {listing} is not UTF-8 text: {error}") from None
    pairs, clips = [], []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("# "):
            continue
        entries = _entries(listing.parent, line)
        missing = [entry for entry in entries if not entry.exists()]
        if missing:
            raise FileNotFoundError(f"{listing}, line {number}: there is no file {missing[0]}")
        if len(entries) == 2 and all(_is(entry, IMAGE_SUFFIXES) for entry in entries):
            pairs.append((entries[0], entries[1]))
        elif len(entries) == 1 and (entries[0].is_dir() or _is(entries[0], VIDEO_SUFFIXES)):
            clips.append(FlowSource(entries[0].name, entries[0]))
        else:
            raise ValueError(
                f"{listing}, line {number}: {line!r} is neither two images, parted by a tab or by spaces, nor one "
                "video or folder of frames"
            )
    if not pairs and not clips:
        raise ValueError(f"list {listing} is empty: wanted two images (or one video) a line, relative to its folder")
    if pairs:
        yield FlowSource(listing.stem, pairs=tuple(pairs))
    yield from clips


def _entries(folder: Path, line: str) -> list[Path]:
    if "\t" in line:
        return [folder / part.strip() for part in line.split("\t") if part.strip()]
    whole = folder / line
    return [whole] if whole.exists() else [folder / part for part in line.split()]


def _is(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes and not path.is_dir()


__all__ = ["RECORD", "FlowSource", "find_flow_sources"]
