"""Videos with labels: what the data sets for label propagation have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.extraction.lists import lines_of
from midway_hub.frame_names import natural_key
from midway_hub.training.data.segmentation.files import read_label_map, read_mask
from midway_hub.training.data.sources.listing import hash_files


@dataclass(frozen=True)
class LabelledSequence:
    """A video whose first frame is labelled, and other frames to compare with.

    Attributes:
        name: Such as `bike-packing`.
        frames: Pictures, in order.
        labels: Label files by the number of the frame, from 0; or one file for all frames under 0.
        binary: Whether the label files are masks of one object, white on black.
    """

    name: str
    frames: tuple[Path, ...]
    labels: Mapping[int, Path]
    binary: bool = False

    def label_map(self, number: int) -> np.ndarray:
        """Read the label map (H, W) uint8 of a frame: 0 is the background, 255 unknown.

        Raises:
            SampleError: The file is missing or broken, or does not hold exact 8-bit labels.
        """
        return (read_mask if self.binary else read_label_map)(self.labels[number])


@dataclass(frozen=True)
class SequenceSet:
    """A data set of labelled videos.

    Attributes:
        name: Such as `davis2017/val`.
        task: What is measured: `davis`, `vip` or `jhmdb`.
        sequences: The videos.
        expected: Videos of the data set as it is published.
        wanted: Files and folders that should be there and are not, found while listing.
    """

    name: str
    task: str
    sequences: tuple[LabelledSequence, ...]
    expected: int
    wanted: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> LabelledSequence:
        return self.sequences[index]

    def missing(self) -> list[str]:
        """Return what should be there and is not, without opening any file."""
        lost = [str(path) for item in self.sequences for path in item.labels.values() if not path.is_file()]
        return [*self.wanted, *lost]

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the data: name, number of videos, a hash of the list of files."""
        files = [(f"{item.name}/{path.name}", str(path)) for item in self.sequences for path in self._files(item)]
        masks = {"masks": "binary"} if any(item.binary for item in self.sequences) else {}
        return {"name": self.name, "sequences": len(self), "files": hash_files(files), **masks}

    @staticmethod
    def _files(item: LabelledSequence) -> list[Path]:
        return [*item.frames, *item.labels.values()]


def pictures_in(folder: Path, suffixes: Sequence[str] = (".jpg", ".jpeg", ".png")) -> tuple[Path, ...]:
    """Return the visible pictures in a folder, in the order of their numbers; none where there is no folder."""
    if not folder.is_dir():
        return ()
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return tuple(sorted(found, key=lambda path: natural_key(path.name)))


def read_names(file: Path) -> list[str]:
    """Return the lines of a list, empty ones left out.

    Raises:
        FileNotFoundError: There is no such list; the message says what is wanted.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no list {file} of the videos; --root must be the data set's own folder")
    return [line.strip() for line in lines_of(file) if line.strip()]
