"""The videos that the paper trains on: what to get, and whether what is in a folder is that. Downloads nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midway_hub.training._video_check import FolderCheck, Found, Wanted, look_at, videos_in

LICENCE = "CC-BY, by the channels that published them"
TOUR = Wanted(seconds=(59 * 60.0, (2 * 60 + 55) * 60.0), short_side=720)
"""The shortest is Wildlife, the longest Bangkok; copies differ in size and rate."""

BDD_FILES = {"train": 70_000, "val": 10_000, "test": 20_000}
BDD_CLIP = Wanted(seconds=(40.0, 40.0), short_side=720, fps=30.0)

_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")

__all__ = [
    "BDD_FILES",
    "TOURS",
    "FolderCheck",
    "Found",
    "Tour",
    "check_bdd100k",
    "check_walking_tours",
    "instructions",
]


@dataclass(frozen=True)
class Tour:
    """One Walking Tours video.

    Attributes:
        name: What its file is called here, without the suffix.
        youtube: Its id at YouTube.
    """

    name: str
    youtube: str


TOURS = (
    Tour("amsterdam", "E07rTPgIvn0"),
    Tour("bangkok", "hUGcHvN4mME"),
    Tour("chiang_mai", "jyxIRzlkO_g"),
    Tour("istanbul", "mA9lYWyXMYU"),
    Tour("kuala_lumpur", "yLTycPjm0nk"),
    Tour("singapore", "aUJl46bEWYo"),
    Tour("stockholm", "Jr9x-RB4E1U"),
    Tour("venice", "fGX0Te6pFvk"),
    Tour("wildlife", "YcI_UXfMTgo"),
    Tour("zurich", "_NmYvuEILw4"),
)


def instructions() -> str:
    """Say what to get and how to name it."""
    lines = "\n".join(f"  {tour.name + '.mp4':<18} https://www.youtube.com/watch?v={tour.youtube}" for tour in TOURS)
    return f"""\
Walking Tours: ten videos on YouTube, {LICENCE}. This command downloads nothing.
Get them with a tool of your choice, subject to its and YouTube's terms, and put them into one folder under these names:

{lines}

- Published at 3840x2160 and 60 frames per second, 59 min (wildlife) to 2 h 55 (bangkok), 1 h 38 on average.
- The paper trains on Venice alone, at 720p and 30 frames per second: that copy is enough, and cheaper to decode.
- List of ids: the data set `shawshankvkt/Walking_Tours` on the Hugging Face Hub, whose card also names the licence.
- Faces and number plates are in the pictures; whether to blur them before training is for you to decide.

Then run this command again with the folder; and `pack` the videos before training:
seeking in hours of video is slow."""


def check_walking_tours(folder: str | Path, *, progress: Callable[[str], None] | None = None) -> FolderCheck:
    """Look at a folder of Walking Tours videos.

    Args:
        folder: Where they are, named as `instructions()` says, or with the YouTube id in the name.
        progress: Called with a file's name before it is opened.

    Returns:
        One entry per tour, missing ones included.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    files = videos_in(Path(folder), _SUFFIXES)
    checked = []
    for tour in TOURS:
        path = next((p for p in files if p.stem.lower() == tour.name or tour.youtube in p.name), None)
        if path is None:
            checked.append(Found(tour.name, remarks=("missing",)))
            continue
        if progress:
            progress(path.name)
        checked.append(look_at(tour.name, path, TOUR))
    return FolderCheck(tuple(checked))


def check_bdd100k(
    folder: str | Path, *, split: str = "train", samples: int = 20, progress: Callable[[str], None] | None = None
) -> FolderCheck:
    """Look at a folder of BDD100K videos: count the files and open some of them.

    Args:
        folder: The flat folder of one split (`bdd100k/videos/train`).
        split: `"train"`, `"val"` or `"test"`.
        samples: How many files to open, spread evenly over the sorted list.
        progress: Called with a file's name before it is opened.

    Returns:
        One entry per file that was opened.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no such split, or `samples` is negative.
    """
    if split not in BDD_FILES:
        raise ValueError(f"split must be one of {', '.join(BDD_FILES)}, got {split!r}")
    if samples < 0:
        raise ValueError(f"samples must be at least 0, got {samples}")
    files, wanted = videos_in(Path(folder), (".mov",)), BDD_FILES[split]
    remarks = () if len(files) == wanted else (f"{len(files)} .mov files, the {split} split has {wanted}",)
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, samples).astype(int))] if files else []
    looked = []
    for path in chosen:
        if progress:
            progress(path.name)
        looked.append(look_at(path.name, path, BDD_CLIP))
    return FolderCheck(tuple(looked), remarks)
