"""Reading a picture and a label map, nothing quietly converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from midway_hub.training.data.frame_pair import SampleError
from PIL import Image

from midway_hub._regular import refuse_irregular

DEEP = ("I", "F")  # how the names of modes with more than 8 bits begin


def read_image(path: str | Path) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 RGB.

    Raises:
        SampleError: It is missing, broken, or has more than 8 bits per channel.
    """
    with _opened(path) as picture:
        if picture.mode.startswith(DEEP):
            raise SampleError(str(path), f"has mode {picture.mode}; pictures have 8 bits per channel", always=True)
        return np.array(_decoded(path, picture, "RGB"))


def read_label_map(path: str | Path, *, coloured: bool = False) -> np.ndarray:
    """Return what a label file holds, without deciding what it means.

    A palette file gives its indices, whatever their colours are, or its colours if those are asked for.

    Args:
        path: The file.
        coloured: Whether colours are wanted rather than numbers.

    Returns:
        (H, W) uint8 numbers, or (H, W, 3) uint8 colours.

    Raises:
        SampleError: It is missing or broken, or does not hold exact 8-bit labels.
    """
    with _opened(path) as picture:
        if picture.format == "JPEG":
            raise SampleError(str(path), "is a JPEG, which changes labels; label maps are PNG files", always=True)
        allowed = ("RGB", "RGBA", "P") if coloured else ("L", "P")
        if picture.mode not in allowed:
            raise SampleError(str(path), _refusal(picture.mode, coloured), always=True)
        return np.array(_decoded(path, picture, "RGB" if coloured else picture.mode))


def _opened(path: str | Path) -> Image.Image:
    try:
        refuse_irregular(path)
        return Image.open(path)
    except FileNotFoundError:
        raise SampleError(str(path), "there is no such file", always=True) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise SampleError(str(path), f"cannot be read as a picture ({error})", always=True) from error


def _decoded(path: str | Path, picture: Image.Image, mode: str) -> Image.Image:
    try:
        picture.load()
        return picture if picture.mode == mode else picture.convert(mode)
    except (OSError, ValueError, SyntaxError) as error:
        raise SampleError(str(path), f"is broken ({error})", always=True) from error


def _refusal(mode: str, coloured: bool) -> str:
    if coloured:
        return f"holds numbers (mode {mode}), but encoding=colours wants an RGB picture; try encoding=train_ids"
    if mode.startswith(DEEP):
        return (
            f"has more than 8 bits per pixel (mode {mode}); class numbers have 8. "
            "Is it an instance or panoptic map? If not, save it with 8 bits"
        )
    if mode in ("RGB", "RGBA"):
        return (
            f"is a colour picture (mode {mode}), but one number per pixel is wanted; name the folder or suffix of the "
            "label maps, or take encoding=colours if every class has its colour"
        )
    return f"has mode {mode}; a label map has one 8-bit number per pixel (mode L or P)"
