"""Label maps in files: the numbers that were stored, or a refusal; nothing is stretched, blended or guessed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from midway_hub._regular import IrregularFileError
from midway_hub.heads import IGNORE
from midway_hub.picture_files import opened_picture, upright, upright_pixels

_LOSSLESS = ("BMP", "PNG", "PPM", "TIFF")  # no GIF: writers sort its colours, which changes the numbers
_MANY = 64
_WHITE_OF = {"L;2": 85, "L;4": 17}
"""By how much Pillow stretches grey of 2 and 4 bits, whose white it makes 255."""
_AS_STORED = ("1", "L", "LA", "P", "P;1", "P;2", "P;4", "I;16", "I;16B", "I;16L", "I;16N", "I;32N", "I;32", "I;32B")
_TIFF_COMPRESSION, _TIFF_JPEG = 259, (6, 7)


class LabelMapError(ValueError):
    """A file does not hold labels that can be trusted.

    Attributes:
        reason: What is wrong, without the file's name.
        seen: What it holds instead, where that is known: `colours`, `numbers` or `deep`.
    """

    def __init__(self, path: str | Path, reason: str, seen: str = "") -> None:
        super().__init__(f"{path} {reason}")
        self.reason, self.seen = reason, seen


def read_label_map(path: str | Path, *, deep: bool = False) -> np.ndarray:
    """Read the numbers of a label map exactly as they are stored: palette indices, or grey of 1, 2, 4, 8 or 16 bits.

    Args:
        path: A PNG, or a PGM, TIFF or BMP. It is turned upright where it has an EXIF orientation.
        deep: Whether numbers of more than 8 bits are taken.

    Returns:
        (H, W) uint8, or uint16 or int32 of a deep file.

    Raises:
        LabelMapError: It is broken, in colours or lossy, transparent in places, or stores its numbers in a way that is
            not read back exactly.
        FileNotFoundError: There is no such file.
    """
    with _opened(path) as picture:
        check_lossless(picture, path)
        if picture.mode not in ("1", "L", "LA", "P", "I") and not picture.mode.startswith("I;16"):
            raise _not_numbers(path, picture.mode)
        if picture.mode.startswith("I") and not deep:
            raise LabelMapError(path, f"has more than 8 bits per pixel (mode {picture.mode}); labels have 8", "deep")
        scale = _stored_scale(path, picture)
        values = np.array(_upright(path, picture))
        if values.ndim == 3:
            if (values[..., 1] != 255).any():
                raise LabelMapError(path, "is transparent in places; save label maps without alpha")
            values = values[..., 0]
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values if scale == 1 else np.rint(values * scale).astype(values.dtype)


def read_label_colours(path: str | Path) -> np.ndarray:
    """Read a picture in which every class has its colour.

    Args:
        path: A file of RGB, RGBA (alpha is dropped) or palette colours of 8 bits.

    Returns:
        (H, W, 3) uint8, turned upright.

    Raises:
        LabelMapError: It is broken, holds numbers, is a JPEG, or has other than 8 bits per channel.
        FileNotFoundError: There is no such file.
    """
    with _opened(path) as picture:
        check_lossless(picture, path, also=("WEBP",))
        if picture.mode not in ("RGB", "RGBA", "P"):
            raise LabelMapError(path, f"holds numbers (mode {picture.mode}) where colours are wanted", "numbers")
        if ";16" in _raw_mode(picture) or _maxval(picture) != 255:
            raise LabelMapError(path, "has other than 8 bits per channel, which would change its colours")
        return np.array(_upright(path, picture).convert("RGBA").convert("RGB"))


def read_binary_mask(path: str | Path) -> np.ndarray:
    """Read a mask of one object, whose pixels are brighter than half; soft edges are cut there.

    Of an indexed file, and of one that holds 0 and 1 alone, every number above 0 is the object.

    Args:
        path: A picture of any kind.

    Returns:
        (H, W) uint8, 1 on the object and 0 elsewhere.

    Raises:
        LabelMapError: It cannot be read.
        FileNotFoundError: There is no such file.
    """
    with _opened(path) as picture:
        if picture.mode == "P":
            return (np.array(_upright(path, picture)) > 0).astype(np.uint8)
        try:
            pixels = upright_pixels(picture, str(path))
        except ValueError as error:
            raise LabelMapError(path, f"is broken ({error})") from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise LabelMapError(path, f"has mode {picture.mode}; save masks with 8 bits")
    light = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    numbers = light.max() <= 1 and picture.format in _LOSSLESS
    return (light > (0 if numbers else np.iinfo(light.dtype).max // 2)).astype(np.uint8)


def object_numbers(labels: np.ndarray, path: str | Path) -> list[int]:
    """Return which objects a first frame's label map holds, and refuse what is no such map.

    Args:
        labels: (H, W) uint8: 0 is the background, 255 unknown, what is between them objects.
        path: How errors call it.

    Raises:
        ValueError: There is no object, or the map looks like a mask with soft edges: more is unknown than is of
            objects, or than is of any where these are more than 64.
    """
    pixels = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    ids = [int(label) for label in np.flatnonzero(pixels) if label not in (0, IGNORE)]
    advice = (
        f"0 is the background and {IGNORE} unknown; number the objects 1, 2, 3, or say that the masks are black and "
        "white (--binary-masks)"
    )
    if not ids:
        raise ValueError(f"{path} holds no objects, only {', '.join(map(str, np.unique(labels)))}: {advice}")
    known = int(pixels[1:IGNORE].sum())
    if pixels[IGNORE] > known or (len(ids) > _MANY and pixels[IGNORE] > pixels[1:IGNORE].max()):
        shown = ", ".join(map(str, ids[:4])) + ", ..." * (len(ids) > 4)
        raise ValueError(
            f"{path} looks like a mask with soft edges: {IGNORE} covers {pixels[IGNORE]:,} pixels, and {len(ids)} "
            f"objects ({shown}) cover {known:,}: {advice}"
        )
    return ids


def check_lossless(picture: Image.Image, path: str | Path, also: tuple[str, ...] = ()) -> None:
    """Refuse formats that do not keep every number.

    Raises:
        LabelMapError: It is a JPEG, of another format that may lose, or holds several pictures.
    """
    inside = picture.format == "TIFF" and picture.tag_v2.get(_TIFF_COMPRESSION) in _TIFF_JPEG  # type: ignore[attr-defined]
    if picture.format in ("JPEG", "MPO") or inside:
        raise LabelMapError(path, "is a JPEG, which changes labels; label maps are PNG files")
    if picture.format not in (*_LOSSLESS, *also):
        raise LabelMapError(path, f"is a {picture.format} file; label maps are PNG files")


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    with ExitStack() as stack:
        try:
            picture, _ = stack.enter_context(opened_picture(path, "label map"))
        except (FileNotFoundError, IrregularFileError):
            raise
        except (OSError, ValueError, SyntaxError) as error:
            raise LabelMapError(path, f"cannot be read as a picture ({error})") from error
        yield picture


def _upright(path: str | Path, picture: Image.Image) -> Image.Image:
    try:
        return upright(picture, "label map")
    except ValueError as error:
        raise LabelMapError(path, f"is broken ({error.__cause__})") from error


def _stored_scale(path: str | Path, picture: Image.Image) -> float:
    """By what Pillow's values are to be multiplied to be those of the file."""
    raw = _raw_mode(picture)
    if picture.format == "PPM":
        if picture.mode == "1":
            raise LabelMapError(path, "is a PBM, in which 1 is black; save label maps as PNG")
        _refuse_above_largest(path, picture)
        return _maxval(picture) / (65535 if picture.mode == "I" else 255)
    if raw in _WHITE_OF:
        return 1 / _WHITE_OF[raw]
    if raw in _AS_STORED and not _cut_rows(picture):
        return 1
    raise LabelMapError(path, f"stores its numbers as {raw}, which is not read exactly; save it as PNG")


def _tile(picture: Image.Image) -> tuple:
    """What Pillow's decoder is told; of a file that is not decoded yet."""
    arguments = picture.tile[0][3]  # type: ignore[attr-defined]
    return tuple(arguments) if isinstance(arguments, tuple | list) else (arguments,)


def _raw_mode(picture: Image.Image) -> str:
    return str(_tile(picture)[0])


def _maxval(picture: Image.Image) -> int:
    """The largest value of a PGM or PPM as its header gives it; of other files 255."""
    if picture.format != "PPM":
        return 255
    if picture.tile[0][0] != "raw":  # type: ignore[attr-defined]
        return int(_tile(picture)[1])
    return 65535 if picture.mode == "I" else 255


def _refuse_above_largest(path: str | Path, picture: Image.Image) -> None:
    """Refuse numbers above the largest that a binary PGM names, which Pillow cuts to it; of plain ones it says so."""
    decoder, _, start, _ = picture.tile[0]  # type: ignore[attr-defined]
    if decoder != "ppm":
        return
    depth = np.dtype(">u2" if picture.mode == "I" else "u1")
    file = picture.fp  # type: ignore[attr-defined]
    file.seek(start)
    stored = file.read(picture.width * picture.height * depth.itemsize)
    highest = int(np.frombuffer(stored, depth, len(stored) // depth.itemsize).max(initial=0))
    if highest > _maxval(picture):
        raise LabelMapError(
            path, f"holds {highest}, but its header says that {_maxval(picture)} is the largest; save it as PNG"
        )


def _cut_rows(picture: Image.Image) -> bool:
    """Whether Pillow takes a BMP of 4 bits for one of 8, as it does where the palette is grey."""
    arguments = _tile(picture)
    return picture.format == "BMP" and picture.mode == "L" and arguments[1] < picture.width


def _not_numbers(path: str | Path, mode: str) -> LabelMapError:
    if mode in ("RGB", "RGBA"):
        return LabelMapError(path, f"is a colour picture (mode {mode}), but one number per pixel is wanted", "colours")
    return LabelMapError(path, f"has mode {mode}; a label map has one whole number per pixel (mode L or P)")
