"""Reading the pictures of a flow data set: frames, and masks of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from midway_hub._regular import refuse_irregular

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where a PNG states the bits of a channel


def read_frame(path: Path) -> np.ndarray:
    """Return a frame, (H, W, 3) uint8 RGB.

    Raises:
        OSError: It is not there, is no picture, or is cut off.
        ValueError: It has 16 bits per channel, of which 8 would be lost silently.
    """
    refuse_irregular(path)
    with Image.open(path) as picture:
        if picture.mode.startswith(("I", "F")) or _is_deep_png(path):
            raise ValueError("it has more than 8 bits per channel; frames have 8 (is it a flow file?)")
        return np.array(picture.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """Return what a mask marks, (H, W) bool: every pixel that is not 0 in a picture or a .npy.

    Raises:
        OSError: It is not there, is no picture, or is cut off.
        ValueError: It is no array of one number per pixel.
    """
    refuse_irregular(path)
    if path.suffix == ".npy":
        marks = np.load(path, allow_pickle=False)
    else:
        with Image.open(path) as picture:
            marks = np.array(picture.convert("L"))
    if marks.ndim != 2:
        raise ValueError(f"a mask has shape (height, width), got {marks.shape}")
    return marks != 0


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(PNG_DEPTH + 1)
    return start.startswith(PNG_SIGNATURE) and start[PNG_DEPTH] > 8
