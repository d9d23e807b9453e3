"""Pictures in files, behind URLs and in PIL images as float tensors (3, H, W) in [0, 1], turned upright."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from midway_hub._regular import refuse_irregular
from midway_hub.processing.arrays import pixels_from_array

_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")


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
    if isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        from midway_hub.fetch import fetch, without_secrets

        return _decode(io.BytesIO(fetch(source)), f"{name} ({without_secrets(source)})")
    path = Path(source).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{name} is the folder {path}; pass the image files in it")
    if not path.exists():
        raise FileNotFoundError(f"{name}: there is no file {path}")
    refuse_irregular(path)
    with path.open("rb") as file:
        return _decode(file, f"{name} ({path})")


def _decode(file: IO[bytes], name: str) -> Tensor:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        advice = ""
        if name.rstrip(")").lower().endswith(_VIDEO_SUFFIXES):
            advice = ". It looks like a video: midway_hub.open_video reads its frames"
        raise ValueError(f"{name} is not an image that Pillow can read{advice}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}") from None
    if image.format == "EPS":
        raise ValueError(f"{name} is a PostScript drawing; render it to PNG first")
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{name} is {image.height}×{image.width} pixels, more than PIL.Image.MAX_IMAGE_PIXELS = "
            f"{Image.MAX_IMAGE_PIXELS:,}; raise that limit if the file is to be trusted"
        )
    # Phones write JPEGs that hold a preview or a depth map as a second picture (MPO): the first is the photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ValueError(
            f"{name} holds several pictures ({image.format}); pass them one by one, for example "
            f"[frame.copy() for frame in PIL.ImageSequence.Iterator(image)]"
        )
    return pixels_from_pil(image, name)


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
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    try:
        image = ImageOps.exif_transpose(image)
        if deep:
            pixels = np.asarray(image).astype(np.uint16)
        elif image.mode in ("I", "F"):
            pixels = np.array(image)
        else:
            if "transparency" in image.info:  # Pillow warns when a palette's transparency is dropped directly
                image = image.convert("RGBA")
            pixels = np.array(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(f"{name} is damaged or cut short: {error}") from error
    return pixels_from_array(pixels, name)
