"""Contact sheets inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from midway_hub.frame_names import natural_key
from midway_hub.picture_files import read_picture

Picture = Image.Image | np.ndarray | Path | str

SAMPLES = "samples"
WIDEST = 2000
_SUFFIXES = {".png", ".jpg", ".jpeg"}


def sheets_of(run_dir: Path, sheets: Mapping[str, Picture]) -> str:
    """Embed the pictures given and those that the run left under `samples/`.

    Args:
        run_dir: The run directory.
        sheets: Caption -> picture: (H, W, 3) uint8, a Pillow image or a file.

    Returns:
        HTML; empty if there is no picture. A file that is no picture is named instead of shown.
    """
    figures = [_figure(caption, picture) for caption, picture in (*sheets.items(), *_left_by(run_dir))]
    return f"<div class='sheets'>{''.join(figures)}</div>" if figures else ""


def _left_by(run_dir: Path) -> Iterator[tuple[str, Path]]:
    folder = run_dir / SAMPLES
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)) if folder.is_dir() else ():
        if path.suffix.lower() in _SUFFIXES:
            yield path.stem.replace("_", " "), path


def _figure(caption: str, picture: Picture) -> str:
    try:
        content = _jpeg(picture)
    except (OSError, ValueError) as error:
        return f"<p class='warning'>{escape(caption)}: {escape(str(error))}</p>"
    data = base64.b64encode(content).decode("ascii")
    alt = escape(caption, quote=True)
    image = f"<img src='data:image/jpeg;base64,{data}' alt='{alt}'>"
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _jpeg(picture: Picture) -> bytes:
    if isinstance(picture, str | Path):
        image = Image.fromarray(read_picture(picture))
    else:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image = image.convert("RGB")
    image.thumbnail((WIDEST, 4 * WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
