"""Cut and colour the views of one clip on the CPU, with torchvision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from midway_hub.training.data.clip import Clip
from midway_hub.training.data.views.blur import blur
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw

SOLARISE_FROM = 128
_JITTER = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def apply_views(clip: Clip, draw: ViewDraw) -> dict[str, Tensor]:
    """Make the views of one clip on the CPU.

    Every operation gives whole grey levels, as torchvision's do on uint8: brightness, contrast, saturation, hue and
    grayscale cut the fraction off, resizing and blur round.

    Args:
        clip: The frames.
        draw: What `draw_views` drew for frames of this size.

    Returns:
        By group, (V, 3, h, w) uint8 RGB, and what goes with it: see `geometry_of`.

    Raises:
        ValueError: Frames that are not (H, W, 3) uint8, of several sizes, or not of the size drawn for.
    """
    frames = [
        _as_tensor(frame, draw.size, f"{clip.name}: frame {number}")
        for frame, number in zip(clip.pictures, clip.frames, strict=True)
    ]
    return {group: _crop_all(frames, crops) for group, crops in draw.groups.items()} | geometry_of(draw)


def geometry_of(draw: ViewDraw) -> dict[str, Tensor]:
    """Return what groups ask for beside pixels, (V, 2, 3) float32: `GROUP/affine` and `GROUP/to_frame`."""
    found = {}
    for group, crops in draw.groups.items():
        if crops.affine is not None:
            found[f"{group}/affine"] = torch.from_numpy(crops.affine)
        if crops.geometry:
            found[f"{group}/to_frame"] = torch.from_numpy(crops.to_frame())
    return found


def _as_tensor(frame: np.ndarray, size: tuple[int, int], name: str) -> Tensor:
    """Return a frame as a (3, H, W) view of its own memory."""
    if frame.dtype != np.uint8:
        raise ValueError(f"{name} is {frame.dtype}, wanted uint8 grey levels from 0 to 255")
    if frame.shape != (*size, 3):
        raise ValueError(f"{name} has shape {frame.shape}, the views were drawn for {(*size, 3)}; draw for this size")
    return torch.from_numpy(frame if frame.flags.writeable else frame.copy()).permute(2, 0, 1)


def _crop_all(frames: list[Tensor], crops: CropDraw) -> Tensor:
    views = torch.empty(len(crops), 3, *crops.size, dtype=torch.uint8)
    for index, (top, left, height, width) in enumerate(crops.boxes.tolist()):
        view = functional.resized_crop(
            frames[crops.frames[index]],
            top,
            left,
            height,
            width,
            [*crops.size],
            interpolation=InterpolationMode.BICUBIC,
            antialias=True,
        )
        if crops.flips[index]:
            view = functional.horizontal_flip(view)
        views[index] = _change_colour(view, crops.colour, index)
    return views


def _change_colour(view: Tensor, draw: ColourDraw, index: int) -> Tensor:
    if draw.jitter[index]:
        for operation in draw.order[index].tolist():
            view = _JITTER[operation](view, draw.factors[index, operation].item())
    if draw.grayscale[index]:
        view = functional.rgb_to_grayscale(view, num_output_channels=3)
    if draw.blur[index] > 0:
        view = blur(view[None].to(torch.float32), draw.blur[[index]])[0].to(torch.uint8)
    if draw.solarise[index]:
        view = functional.solarize(view, SOLARISE_FROM)
    return view
