"""Clips from decoded frames: one folder of numbered images per video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.frame_names import Series
from midway_hub.picture_files import read_picture
from midway_hub.training.data.clip import Clip, SampleError
from midway_hub.training.data.needs import PAIR, Frames
from midway_hub.training.data.settings import GapSettings, TimeUnit
from midway_hub.training.data.sources.choose import SLACK, choose_frames, first_frames, room
from midway_hub.training.data.sources.listing import find_frame_folders, hash_files
from midway_hub.training.data.sources.places import Places, places_of

logger = logging.getLogger("midway_hub")


class FrameSource:
    """Clips from folders of images; an item is a video or, with `every_pair`, a first frame.

    Args:
        path: A folder of images, or of one folder of images per video.
        gap: Distance of neighbouring frames.
        pattern: Which of the images to take.
        frame_rate: Frames per second that they were decoded at.
        frame_times: Unit of the times in the names, if there are any: seconds are theirs then.
        every_pair: Take every frame that leaves room for the largest gap once per pass as the first one.
        frames: What a clip is.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no image, none matches, names give no order or no times, or with `every_pair` no video is
            long enough.
    """

    def __init__(
        self,
        path: Path,
        gap: GapSettings,
        *,
        pattern: str = "*",
        frame_rate: float = 30.0,
        frame_times: TimeUnit | None = None,
        every_pair: bool = False,
        frames: Frames = PAIR,
    ) -> None:
        self.path, self.gap, self.frame_rate, self.every_pair = path, gap, frame_rate, every_pair
        self.frames = frames
        if every_pair and frames.kind != "pair":
            raise ValueError(f"data.every_pair takes pairs of frames, and this method takes {frames}; set it to false")
        self._timed = frame_times is not None and gap.unit == "seconds"
        videos = find_frame_folders(path, pattern)
        self.folders = [(video.folder, video.names) for video in videos]
        self._names = [video.name for video in videos]
        self._places = [_places(path / video.name, video.series, frame_times) for video in videos]
        in_frames = gap.unit == "frames" or self._timed
        least, most = gap.range if in_frames else (bound * frame_rate for bound in gap.range)
        self._range = (float(least), float(most))
        self._ends = np.cumsum([self._starts(video) for video in range(len(videos))])
        if every_pair and not self._ends[-1]:
            longest = max(len(names) for _, names in self.folders)
            raise ValueError(f"no folder of {path} is long enough for a gap of {gap}: the longest has {longest} frames")

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.every_pair else len(self.folders)

    def clips(self, index: int, count: int, generator: np.random.Generator) -> list[Clip]:
        """Read `count` clips of one video or, with `every_pair`, of one first frame; see `ClipSource`."""
        video, start = index, 0
        if self.every_pair:
            video = int(np.searchsorted(self._ends, index, side="right"))
            start = self._start(video, index - (int(self._ends[video - 1]) if video else 0))
        axis = self._axis(video)
        if self.every_pair:  # what one first frame can reach, and the frame behind it, which shows that there is room
            axis = axis[start : np.searchsorted(axis, axis[start] + self._range[1] + SLACK, side="right") + 1]
        only = 0 if self.every_pair else None
        chosen = choose_frames(axis, self.frames, self._range, count, generator, first=only)
        if chosen is None:
            reason = f"too short: it has {len(axis)} frames, which leaves no room for {room(self.frames, self.gap)}"
            raise SampleError(self._names[video], reason, always=True)
        return [self._read(video, [start + number for number in numbers]) for numbers in chosen]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, number of items and of files, a hash of the files' names and sizes, and what is amiss."""
        files = [
            (f"{folder}/{name}", str(self.path / folder / name)) for folder, names in self.folders for name in names
        ]
        missing = sum(places.missing for places in self._places)
        uneven = sum(bool(places.remark) and not places.missing for places in self._places)
        amiss = {"missing_frames": missing, "videos_of_uneven_numbers": uneven}
        return {
            "kind": "frames",
            "items": len(self),
            "files": len(files),
            "hash": hash_files(files),
            **{what: count for what, count in amiss.items() if count},
        }

    def _axis(self, video: int) -> np.ndarray:
        """Where the frames of a video lie, in the unit that gaps are measured in."""
        places = self._places[video]
        if self._timed:
            assert places.seconds is not None
            return places.seconds
        return np.arange(len(self.folders[video][1])) if places.frames is None else places.frames

    def _starts(self, video: int) -> int:
        """How many frames of a video can be the first of a pair."""
        if self._places[video].frames is None and not self._timed:
            return max(0, len(self.folders[video][1]) - int(np.ceil(self._range[1] - 1e-6)))
        return len(first_frames(self._axis(video), self._range))

    def _start(self, video: int, number: int) -> int:
        """The frame that is the n-th of a video that can be the first of a pair."""
        if self._places[video].frames is None and not self._timed:
            return number
        return int(first_frames(self._axis(video), self._range)[number])

    def _seconds(self, video: int, first: int, second: int) -> float:
        places = self._places[video]
        if places.seconds is not None:
            return float(places.seconds[second] - places.seconds[first])
        steps = second - first if places.frames is None else int(places.frames[second] - places.frames[first])
        return steps / self.frame_rate

    def _read(self, video: int, numbers: Sequence[int]) -> Clip:
        (folder, files), name = self.folders[video], self._names[video]
        images = [_read_image(self.path / folder / files[number], f"{folder}/{files[number]}") for number in numbers]
        for number, image in zip(numbers, images, strict=True):
            if image.shape != images[0].shape:
                sizes = " and ".join(f"{it.shape[1]}x{it.shape[0]}" for it in (images[0], image))
                raise SampleError(name, f"frames {files[numbers[0]]} and {files[number]} differ in size: {sizes}")
        times = [self._seconds(video, numbers[0], number) for number in numbers]
        return Clip(tuple(images), name, tuple(numbers), tuple(times))


def _read_image(path: Path, name: str) -> np.ndarray:
    try:
        return read_picture(path)
    except (OSError, ValueError) as error:
        raise SampleError(name, f"cannot be read as an image: {error}") from error


def _places(video: Path, series: Series, unit: TimeUnit | None) -> Places:
    """Read places out of names, and say where they are not what a decoder writes."""
    try:
        places = places_of(series, unit)
    except ValueError as error:
        raise ValueError(f"{video}: {error}") from None
    if places.missing:
        logger.warning("%s: %s. No pair counts the frames around them as consecutive", video, places.remark)
    elif places.remark:
        advice = "" if unit else "; data.frame_times=ns (or us, ms, s) reads them as times"
        logger.info("%s: %s, and are taken in order%s", video, places.remark, advice)
    return places
