"""Clips from video files, opened once for several (paper, appendix A)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.training.data.clip import Clip, SampleError
from midway_hub.training.data.needs import PAIR, Frames
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.choose import choose_frames, room
from midway_hub.training.data.sources.listing import find_videos, hash_files
from midway_hub.video import FrameReader, VideoError, available_readers, open_video


class VideoSource:
    """Clips of exactly the frames asked for, from the videos of a folder, a list, or one video.

    Args:
        path: A folder (searched with all folders below it), a `.txt` list of videos, or one video.
        gap: Distance of neighbouring frames.
        pattern: Which of the videos to take.
        reader: Video reader, as `midway_hub.video.open_video` takes it.
        index_cache: Folder that keeps the videos' lists of frames between visits, processes and restarts.
        frames: What a clip is.

    Raises:
        FileNotFoundError: `path`, or an entry of the list, does not exist.
        ValueError: There is no video, none matches, or the reader cannot be used here.
    """

    def __init__(
        self,
        path: Path,
        gap: GapSettings,
        *,
        pattern: str = "*",
        reader: str = "auto",
        index_cache: Path | None = None,
        frames: Frames = PAIR,
    ) -> None:
        if reader != "auto" and (state := available_readers().get(reader, "unknown")).startswith(("not ", "cannot ")):
            raise ValueError(f"data.reader={reader} cannot be used: {state}; data.reader=auto takes what is there")
        self.gap, self.reader, self.index_cache, self.frames = gap, reader, index_cache, frames
        self.files = find_videos(path, pattern)

    def __len__(self) -> int:
        return len(self.files)

    def clips(self, index: int, count: int, generator: np.random.Generator) -> list[Clip]:
        """Open one video and take `count` clips from it; see `ClipSource`."""
        name, path = self.files[index]
        try:
            reader = open_video(path, reader=self.reader, num_threads=1, index_cache=self.index_cache)
        except VideoError as error:
            raise SampleError(name, _reason(error, path), always=True) from error
        except OSError as error:
            raise SampleError(name, _reason(error, path)) from error
        with reader:
            chosen = self._choose(reader, name, count, generator)
            try:
                pictures = reader.get_frames(np.ravel(chosen))
            except (VideoError, OSError) as error:
                raise SampleError(name, _reason(error, path)) from error
            times = reader.timestamps
        length = self.frames.count
        return [
            Clip(
                tuple(pictures[length * n + k] for k in range(length)),
                name,
                numbers,
                tuple(float(times[number] - times[numbers[0]]) for number in numbers),
            )
            for n, numbers in enumerate(chosen)
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, number and hash of names and sizes of the files."""
        return {"kind": "videos", "items": len(self), "hash": hash_files(self.files)}

    def _choose(
        self, reader: FrameReader, name: str, count: int, generator: np.random.Generator
    ) -> list[tuple[int, ...]]:
        times = np.arange(len(reader)) if self.gap.unit == "frames" else reader.timestamps
        chosen = choose_frames(times, self.frames, self.gap.range, count, generator)
        if chosen is None:
            reason = (
                f"too short: it has {len(reader)} frames ({reader.duration:.2f} s, {reader.fps:.3g} a second), "
                f"which leaves no room for {room(self.frames, self.gap)}"
            )
            raise SampleError(name, reason, always=True)
        return chosen


def _reason(error: Exception, path: str) -> str:
    return str(error).removeprefix(f"{path}: ")
