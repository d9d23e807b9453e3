"""Reading the pictures of a flow data set: frames, and masks of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from midway_hub._regular import refuse_irregular
from midway_hub.flow_io.numpy_files import array_of
from midway_hub.picture_files import opened_picture, read_picture, upright_pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where a PNG states the bits of a channel


def read_frame(path: Path) -> np.ndarray:
    """Return a frame, (H, W, 3) uint8 RGB, turned upright.

    Raises:
        OSError: It is not there.
        ValueError: It is no picture or is cut off, or has 16 bits per channel, of which 8 would be lost silently.
    """
    if _is_deep(path):
        raise ValueError("it has more than 8 bits per channel; frames have 8 (is it a flow file?)")
    return read_picture(path, "frame")


def read_mask(path: Path) -> np.ndarray:
    """Return what a mask marks, (H, W) bool: every pixel that is not 0, or not black, in a picture or a .npy.

    Raises:
        OSError: It is not there.
        ValueError: It is no picture or is cut off, or no array of one number per pixel.
    """
    refuse_irregular(path)
    if path.suffix == ".npy":
        marks = array_of(path.read_bytes())
    else:
        with opened_picture(path, "mask") as (picture, title):
            pixels = upright_pixels(picture, title)
        marks = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    if marks.ndim != 2:
        raise ValueError(f"a mask has shape (height, width), got {marks.shape}")
    return marks != 0


def _is_deep(path: Path) -> bool:
    with opened_picture(path, "frame") as (picture, _):
        if picture.mode.startswith(("I", "F")):
            return True
    with path.open("rb") as file:
        start = file.read(PNG_DEPTH + 1)
    return start.startswith(PNG_SIGNATURE) and start[PNG_DEPTH] > 8
