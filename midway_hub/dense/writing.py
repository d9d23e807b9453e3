"""What both tasks write alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from midway_hub._durable import need_folder, whole_file

NAMED = 3
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


def folder_of_one_run(folder: Path, names: Iterable[str]) -> Path:
    """Make a folder for the numbered files of one run, so that what lies in it afterwards is of that run alone.

    Files of the names that the run writes are written over, as a single output would be; nothing is ever deleted.

    Args:
        folder: Made where it is missing; the one above it must be there.
        names: What the run will write in it.

    Raises:
        ValueError: It holds other files of the same ending: an earlier run's, or somebody's own.
        FileNotFoundError: There is no folder to make it in.
    """
    need_folder(folder)
    names = set(names)
    endings = {Path(name).suffix.lower() for name in names}
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = sorted(n for n in there if n not in names and n[0] != "." and Path(n).suffix.lower() in endings)
    if others:
        shown = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        raise ValueError(
            f"folder {folder} holds {len(others)} files that this run would not write over ({shown}) and that would be "
            "taken for its own; delete them, or choose another folder"
        )
    folder.mkdir(exist_ok=True)
    return folder


def checked_picture(path: str | Path) -> Path:
    """Return where to write a picture, or refuse an ending that is none of a picture."""
    if Path(path).suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"pictures are written as {' '.join(PICTURE_SUFFIXES)}, got {path}")
    return Path(path)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture that is whole or not there."""
    with whole_file(path) as beside:
        picture.save(beside)
