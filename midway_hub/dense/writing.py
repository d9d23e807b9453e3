"""What both tasks write alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from midway_hub._durable import need_folder, whole_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SAMPLES = 6
"""Frames or pairs of a video that are looked at before it is written, to find one scale or one legend for all of it."""

Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


def check_places(inputs: Iterable[str | Path], outputs: Iterable[str | Path | None]) -> None:
    """Refuse to write over what is read, to one place twice, or into a folder that does not exist.

    Raises:
        ValueError: An output is an input, or another output.
        FileNotFoundError: An output's folder does not exist.
    """
    taken = {Path(path).resolve(): "it is what is read" for path in inputs}
    for path in outputs:
        if path is None:
            continue
        need_folder(Path(path))
        if reason := taken.get(Path(path).resolve()):
            raise ValueError(f"{path} cannot be written: {reason}; choose another name")
        taken[Path(path).resolve()] = "another result is written there"


def checked_picture(path: str | Path) -> Path:
    """Return where to write a picture, or refuse an ending that is none of a picture."""
    if Path(path).suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"pictures are written as {' '.join(PICTURE_SUFFIXES)}, got {path}")
    return Path(path)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture that is whole or not there."""
    with whole_file(path) as beside:
        picture.save(beside)
