"""Reading a picture and a label map of a data set, nothing quietly converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from midway_hub.label_maps import LabelMapError, read_binary_mask, read_label_colours
from midway_hub.label_maps import read_label_map as read_numbers
from midway_hub.picture_files import read_picture
from midway_hub.training.data.clip import SampleError

_ADVICE = {
    "colours": "; name the folder or suffix of the label maps, or take encoding=colours if every class has its colour",
    "numbers": ": encoding=colours wants an RGB picture; try encoding=train_ids",
    "deep": ". Is it an instance or panoptic map? If not, save it with 8 bits",
}


def read_image(path: str | Path) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 RGB, as every command reads it: turned upright, deep ones rounded to 8 bits.

    Raises:
        SampleError: It is missing or broken.
    """
    try:
        return read_picture(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise SampleError(str(path), f"cannot be read as a picture ({error})", always=True) from error


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
    try:
        return read_label_colours(path) if coloured else read_numbers(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except LabelMapError as error:
        raise SampleError(str(path), error.reason + _ADVICE.get(error.seen, ""), always=True) from error


def read_mask(path: str | Path) -> np.ndarray:
    """Return a mask of one object, (H, W) uint8 of 0 and 1: what is brighter than half; see `read_binary_mask`.

    Raises:
        SampleError: It is missing or broken.
    """
    try:
        return read_binary_mask(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except LabelMapError as error:
        raise SampleError(str(path), error.reason, always=True) from error


def _missing(path: str | Path) -> SampleError:
    return SampleError(str(path), "there is no such file", always=True)
