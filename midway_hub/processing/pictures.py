"""Pictures in files, behind URLs and in PIL images as float tensors (3, H, W) in [0, 1], turned upright."""

from __future__ import annotations

import os

from PIL import Image
from torch import Tensor

from midway_hub.picture_files import opened_picture, upright_pixels
from midway_hub.processing.arrays import pixels_from_array


def pixels_from_file(source: str | os.PathLike[str], name: str) -> Tensor:
    """Reads an image file.

    Args:
        source: A path or an http(s) URL.
        name: How errors call it.

    Returns:
        (3, H, W) float32 in [0, 1], turned upright as its EXIF orientation says.

    Raises:
        FileNotFoundError: No such file.
        IsADirectoryError: A folder.
        ValueError: Not an image, a damaged one, several pictures in one file, more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or a URL that is not http(s).
        FetchError: The URL does not give an image.
    """
    with opened_picture(source, name) as (image, title):
        return pixels_from_pil(image, title)


def pixels_from_pil(image: Image.Image, name: str) -> Tensor:
    """Reads a PIL image (of several pictures the current one), turned upright.

    Args:
        image: Any mode. 16-bit grey is scaled from 0..65535; alpha is dropped.
        name: How errors call it.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        ValueError: The file behind it is damaged, or its 32-bit values are not in [0, 1].
    """
    return pixels_from_array(upright_pixels(image, name), name)
