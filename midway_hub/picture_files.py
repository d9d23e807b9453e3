"""Still pictures in files, behind URLs and in PIL images as arrays, turned upright: the one reader of stills."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from midway_hub._regular import refuse_irregular

_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF, 4.6.5: those whose width is the height of what is stored
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8
_DEEP, _FULL = ("PNG", "PPM"), 65535


def read_picture(source: str | os.PathLike[str], name: str = "picture") -> np.ndarray:
    """Read a picture as 8-bit RGB.

    Args:
        source: A path or an http(s) URL.
        name: How errors call it.

    Returns:
        (H, W, 3) uint8, turned upright as its EXIF orientation says. Deeper pictures are rounded to 8 bits, grey is
        repeated, alpha is dropped, and a colour profile is not applied.

    Raises:
        ValueError: As `opened_picture` and `upright_pixels`, or floats outside [0, 1].
        OSError: As `opened_picture`.
    """
    with opened_picture(source, name) as (image, title):
        pixels = upright_pixels(image, title)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return np.rint(pixels / (_FULL / 255)).astype(np.uint8)[..., None].repeat(3, axis=2)
    from midway_hub.processing.arrays import pixels_from_array

    return (pixels_from_array(pixels, title).movedim(0, -1).numpy() * 255).round().astype(np.uint8)


@contextmanager
def opened_picture(source: str | os.PathLike[str], name: str) -> Iterator[tuple[Image.Image, str]]:
    """Open a picture, of which only the header is read.

    Args:
        source: A path or an http(s) URL.
        name: How errors call it.

    Yields:
        The picture, and how errors call it: its name and place.

    Raises:
        FileNotFoundError: No such file.
        IsADirectoryError: A folder.
        IrregularFileError: A pipe or a device.
        ValueError: Not an image, several pictures in one file, more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, or a URL
            that is not http(s).
        FetchError: The URL does not give an image.
    """
    if isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        from midway_hub.fetch import fetch, without_secrets

        title = f"{name} ({without_secrets(source)})"
        with _checked(io.BytesIO(fetch(source)), title) as image:
            yield image, title
        return
    path = Path(source).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{name} is the folder {path}; pass the image files in it")
    if not path.exists():
        raise FileNotFoundError(f"{name}: there is no file {path}")
    refuse_irregular(path)
    title = f"{name} ({path})"
    with path.open("rb") as file, _checked(file, title) as image:
        yield image, title


def upright_pixels(image: Image.Image, name: str) -> np.ndarray:
    """Decode a PIL image (of several pictures the current one), turned upright.

    Args:
        image: Any mode.
        name: How errors call it.

    Returns:
        (H, W, 3) uint8 RGB; of grey with more than 8 bits (H, W) uint16, whose white is 65535; of 32-bit whole numbers
        and floats (H, W) as they are stored.

    Raises:
        ValueError: The file behind it is damaged, or its colours have no way to RGB.
    """
    decoded = upright(image, name)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _DEEP):
        return _full_scale(np.asarray(decoded).astype(np.uint16), image)
    if image.mode in ("I", "F"):
        return np.array(decoded)
    try:
        if "transparency" in decoded.info:  # Pillow warns when a palette's transparency is dropped directly
            decoded = decoded.convert("RGBA")
        return np.array(decoded.convert("RGB"))
    except ValueError as error:
        raise ValueError(
            f"{name} holds colours of mode {image.mode}, which are not read ({error}); save it as RGB"
        ) from error


def upright(image: Image.Image, name: str) -> Image.Image:
    """Decode a PIL image and turn it as its EXIF orientation says, in the mode that it has.

    Raises:
        ValueError: The file behind it is damaged.
    """
    try:
        image.load()
        return ImageOps.exif_transpose(image) if _says_something(image) else image.copy()
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(f"{name} is damaged or cut short: {error}") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height that a picture has once its EXIF orientation has turned it upright."""
    if image.format == "TIFF":  # Pillow turns it itself, and in some versions says so beforehand
        return upright(image, "picture").size
    turned = _says_something(image) and image.getexif().get(_ORIENTATION) in _TURNED
    return (image.height, image.width) if turned else (image.width, image.height)


def _says_something(image: Image.Image) -> bool:
    """Whether Pillow can read a picture's EXIF; one that is damaged turns nothing, as in viewers."""
    try:
        image.getexif()
    except MemoryError:
        raise
    except Exception:  # it parses what it finds
        return False
    return True


def _full_scale(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Undo what Pillow leaves to its users in deep TIFFs: 12-bit white is 4095, and zero may be white."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_BITS) == (12,):
        pixels = np.rint(pixels * (_FULL / 4095)).astype(np.uint16)
    return _FULL - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels


def _checked(file: IO[bytes], name: str) -> Image.Image:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        advice = ""
        if name.rstrip(")").lower().endswith(_VIDEO_SUFFIXES):
            advice = ". It looks like a video: midway_hub.open_video reads its frames"
        raise ValueError(f"{name} is not an image that Pillow can read{advice}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # as in `upright`: of headers that are cut short, too
        raise ValueError(f"{name} is damaged or cut short: {error}") from None
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
    return image
