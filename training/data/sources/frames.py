"""Frame pairs from decoded frames: one folder of numbered images per video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from midway_hub.training.data.frame_pair import FramePair, SampleError
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.choose import choose_pairs
from midway_hub.training.data.sources.listing import find_frame_folders, frame_number, hash_files
from PIL import Image

from midway_hub._regular import refuse_irregular


class FrameSource:
    """Pairs from folders of images; an item is a folder or, with `every_pair`, a first frame.

    Args:
        path: A folder of images, or of one folder of images per video.
        gap: Distance of the two frames.
        pattern: Which of the images to take.
        frame_rate: Frames per second that they were decoded at.
        every_pair: Take every frame that leaves room for the largest gap once per pass as the first one.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no image, none matches, numbers are missing, or with `every_pair` no folder is long enough.
    """

    def __init__(
        self,
        path: Path,
        gap: GapSettings,
        *,
        pattern: str = "*",
        frame_rate: float = 30.0,
        every_pair: bool = False,
    ) -> None:
        self.path, self.gap, self.frame_rate, self.every_pair = path, gap, frame_rate, every_pair
        self.folders = find_frame_folders(path, pattern)
        for folder, names in self.folders:
            _check_none_missing(path / folder, names)
        least, most = gap.range if gap.unit == "frames" else (bound * frame_rate for bound in gap.range)
        self._gap_frames = (float(least), float(most))
        starts = [max(0, len(names) - int(np.ceil(most - 1e-6))) for _, names in self.folders]
        self._ends = np.cumsum(starts)
        if every_pair and not self._ends[-1]:
            longest = max(len(names) for _, names in self.folders)
            raise ValueError(f"no folder of {path} is long enough for a gap of {gap}: the longest has {longest} frames")

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.every_pair else len(self.folders)

    def pairs(self, index: int, count: int, generator: np.random.Generator) -> list[FramePair]:
        """Read `count` pairs of one folder or, with `every_pair`, of one first frame; see `PairSource`."""
        folder, start = index, 0
        if self.every_pair:
            folder = int(np.searchsorted(self._ends, index, side="right"))
            start = index - (int(self._ends[folder - 1]) if folder else 0)
        name, files = self.folders[folder]
        numbers = np.arange(len(files))
        if self.every_pair:  # exactly the frames that one first frame can reach
            numbers = numbers[start : start + int(np.ceil(self._gap_frames[1] - 1e-6)) + 1]
        chosen = choose_pairs(numbers, self._gap_frames, count, generator)
        if chosen is None:
            reason = f"too short: it has {len(files)} frames, which leaves no room for a gap of {self.gap}"
            raise SampleError(name, reason, always=True)
        return [self._read(name, files, start + first, start + second) for first, second in chosen]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, number of items and of files, and a hash of the files' names and sizes."""
        files = [
            (f"{folder}/{name}", str(self.path / folder / name)) for folder, names in self.folders for name in names
        ]
        return {"kind": "frames", "items": len(self), "files": len(files), "hash": hash_files(files)}

    def _read(self, folder: str, files: list[str], first: int, second: int) -> FramePair:
        images = [
            _read_image(self.path / folder / files[number], f"{folder}/{files[number]}") for number in (first, second)
        ]
        if images[0].shape != images[1].shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
            raise SampleError(folder, f"frames {files[first]} and {files[second]} differ in size: {sizes}")
        return FramePair(images[0], images[1], folder, (first, second), (second - first) / self.frame_rate)


def _read_image(path: Path, name: str) -> np.ndarray:
    try:
        refuse_irregular(path)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all of these
        raise SampleError(name, f"cannot be read as an image: {error}") from error


def _check_none_missing(folder: Path, names: list[str]) -> None:
    """A missing file would move all frames behind it, so that gaps are not what they are said to be."""
    numbers = [frame_number(name) for name in names]
    if None in numbers or len(names) < 3:
        return
    steps = np.diff(np.array(numbers, dtype=np.int64))
    if (steps != steps[0]).any() or steps[0] == 0:
        at = int(np.argmax(steps != steps[0])) if steps[0] else 0
        raise ValueError(
            f"frames are missing or doubled in {folder}: {names[at]} is followed by {names[at + 1]}; decode it again, "
            f"or choose files with data.pattern"
        )
