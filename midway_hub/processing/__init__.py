"""Frames of any kind and size to model input, and dense outputs back to the frames' own size.

A frame is a path, an http(s) URL, a PIL image, an array or a tensor. Files and PIL images are turned upright as their
EXIF orientation says.

Arrays: a numpy array is channels-last, (H, W), (H, W, C), (T, H, W, C) or (B, T, H, W, C); a torch tensor is
channels-first, (H, W), (C, H, W), (T, C, H, W) or (B, T, C, H, W). C is 1 (grey), 3 (RGB) or 4 (RGBA). Where the
customary place does not hold such a number and the other place holds 3, the other place is taken: a tensor
(480, 640, 3) is read as (H, W, C), an array (3, 480, 640) as (C, H, W).

Values: uint8 is 0..255, uint16 is 0..65535, floats are in [0, 1] already. Grey is repeated to RGB. Alpha is dropped, as
`PIL.Image.convert("RGB")` does and training data was read; composite first where that matters.
"""

from midway_hub.processing.frames import load_clips, load_frame, load_frames
from midway_hub.processing.geometry import Geometry, Placement
from midway_hub.processing.normalisation import IMAGENET, Normalisation
from midway_hub.processing.processor import (
    MidwayImageProcessor,
    MidwayInputs,
    register_image_processor,
)
from midway_hub.processing.settings import read_processor
from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "IMAGENET",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Geometry",
    "MidwayImageProcessor",
    "MidwayInputs",
    "Normalisation",
    "Placement",
    "load_clips",
    "load_frame",
    "load_frames",
    "read_processor",
    "register_image_processor",
]
