"""What a folder of videos holds, against what it should: duration, size, rate, and whether it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midway_hub.training._text import text_table
from midway_hub.video import FrameReader, VideoError, open_video

_SPOTS = 5
_SLACK = 30.0


@dataclass(frozen=True)
class Found:
    """What is known of one video.

    Attributes:
        name: Which one.
        path: Its file; None if there is none.
        seconds, width, height, fps: What the file says of itself; None if it cannot be opened.
        readable: Positions of the file that could be decoded, of `asked`.
        asked: Positions that were tried.
        remarks: What is not as it should be; empty if all is well.
    """

    name: str
    path: Path | None = None
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    readable: int = 0
    asked: int = 0
    remarks: tuple[str, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """Name, minutes, pixels, frames per second, readable positions and remarks, to be read."""
        return (
            self.name,
            "-" if self.seconds is None else f"{self.seconds / 60:.1f}",
            "-" if self.width is None else f"{self.width}x{self.height}",
            "-" if self.fps is None else f"{self.fps:.2f}",
            f"{self.readable}/{self.asked}" if self.asked else "-",
            "; ".join(self.remarks) or "fine",
        )


@dataclass(frozen=True)
class FolderCheck:
    """What is in a folder of training videos.

    Attributes:
        videos: One per video that was looked at, or that is missing.
        remarks: What concerns the whole folder.
    """

    videos: tuple[Found, ...]
    remarks: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing is amiss."""
        return not self.remarks and all(not video.remarks for video in self.videos)

    def __str__(self) -> str:
        """What concerns the whole folder, then a table of the videos."""
        rows = [video.cells() for video in self.videos]
        return "\n".join(
            [*self.remarks, text_table(("video", "minutes", "pixels", "fps", "readable", "remarks"), rows)]
        )


@dataclass(frozen=True)
class Wanted:
    """What a video should be.

    Attributes:
        seconds: Shortest and longest known duration.
        short_side: Pixels of the shorter side, at least.
        fps: Frames per second; None where copies differ.
    """

    seconds: tuple[float, float]
    short_side: int
    fps: float | None = None


def videos_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the videos of a flat folder, sorted.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one that the videos are in")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def look_at(name: str, path: Path, wanted: Wanted) -> Found:
    """Open a video and decode frames at several positions, from the first to the last."""
    try:
        with open_video(path, num_threads=1) as reader:
            spots = np.unique(np.linspace(0, len(reader) - 1, _SPOTS).astype(int)).tolist()
            broken = [spot for spot in spots if not _readable(reader, spot)]
            facts = (reader.duration, reader.width, reader.height, reader.fps)
    except (VideoError, OSError) as error:
        return Found(name, path, remarks=(f"cannot be opened: {error}",))
    remarks = (*_oddities(*facts, wanted), *(f"frame {spot} cannot be decoded" for spot in broken))
    return Found(name, path, *facts, readable=len(spots) - len(broken), asked=len(spots), remarks=remarks)


def _readable(reader: FrameReader, spot: int) -> bool:
    try:
        reader.get_frames([spot])
    except VideoError:
        return False
    return True


def _oddities(seconds: float, width: int, height: int, fps: float, wanted: Wanted) -> Iterator[str]:
    shortest, longest = wanted.seconds
    if not shortest - _SLACK <= seconds <= longest + _SLACK:
        yield f"lasts {seconds / 60:.1f} min, known are {shortest / 60:.1f} to {longest / 60:.1f} min"
    if min(width, height) < wanted.short_side:
        yield f"{width}x{height}, wanted a short side of at least {wanted.short_side}"
    if wanted.fps is not None and abs(fps - wanted.fps) > 1:
        yield f"{fps:.2f} frames per second, wanted about {wanted.fps:g}"
