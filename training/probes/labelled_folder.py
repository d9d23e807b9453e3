"""Labelled images from two folders: pictures, and label maps of the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from midway_hub.label_maps import read_label_map
from midway_hub.picture_files import read_picture
from midway_hub.training.data.views import normalise
from midway_hub.training.probes.dense import LabelledFrames

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def read_labelled_folder(images: Path, labels: Path, *, size: int = 224, patch_size: int = 16) -> LabelledFrames:
    """Read images and their label maps, cropped to the same centred square.

    Args:
        images: Folder of pictures, searched through its subfolders.
        labels: Folder of PNGs with one class per pixel, at the same relative paths.
        size: Side of the square in pixels, rounded down to whole patches.
        patch_size: Side of a patch in pixels.

    Returns:
        All images that have labels, in the order of their names.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: No image has labels; a label map is not read exactly (`midway_hub.label_maps`), or of another size
            than its image.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; probes.images and probes.labels name two folders")
    pictures = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    found = [(path, (labels / path.relative_to(images)).with_suffix(".png")) for path in pictures]
    found = [(picture, label) for picture, label in found if label.is_file()]
    if not found:
        raise ValueError(
            f"none of the {len(pictures)} images in {images} has a label map in {labels}; wanted PNGs of the same names"
        )
    side = size // patch_size * patch_size
    read = [_read(picture, label, side) for picture, label in found]
    return LabelledFrames(
        frames=normalise(torch.stack([torch.from_numpy(frame) for frame, _ in read]).permute(0, 3, 1, 2)),
        labels=torch.stack([torch.from_numpy(classes) for _, classes in read]).long(),
    )


def _read(picture: Path, label: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    frame, classes = Image.fromarray(read_picture(picture)), Image.fromarray(read_label_map(label, deep=True))
    if classes.size != frame.size:
        raise ValueError(f"{label} is {classes.size} pixels, its image {frame.size}; they must be of one size")
    square = ImageOps.fit(frame, (side, side), Image.Resampling.BICUBIC)
    return np.array(square), np.array(ImageOps.fit(classes, (side, side), Image.Resampling.NEAREST))
