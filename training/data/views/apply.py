"""Cut and colour the views of one pair on the CPU, with torchvision."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from midway_hub.training.data.frame_pair import FramePair
from midway_hub.training.data.views.blur import blur
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw

SOLARISE_FROM = 128
_JITTER = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def apply_views(pair: FramePair, draw: ViewDraw) -> dict[str, Tensor]:
    """Make the views of one frame pair on the CPU.

    Every operation gives whole grey levels, as torchvision's do on uint8: brightness, contrast, saturation, hue and
    grayscale cut the fraction off, resizing and blur round.

    Args:
        pair: The two frames.
        draw: What `draw_views` drew for frames of this size.

    Returns:
        By group, (V, 3, S, S) uint8 RGB.

    Raises:
        ValueError: Frames that are not (H, W, 3) uint8, of two sizes, or not of the size drawn for.
    """
    first, second = (f"{pair.name}: frame {number}" for number in pair.frames)
    frames = [_as_tensor(pair.first, draw.size, first), _as_tensor(pair.second, draw.size, second)]
    return {group: _crop_all(frames, crops) for group, crops in draw.groups.items()}


def _as_tensor(frame: np.ndarray, size: tuple[int, int], name: str) -> Tensor:
    """Return a frame as a (3, H, W) view of its own memory."""
    if frame.dtype != np.uint8:
        raise ValueError(f"{name} is {frame.dtype}, wanted uint8 grey levels from 0 to 255")
    if frame.shape != (*size, 3):
        raise ValueError(f"{name} has shape {frame.shape}, the views were drawn for {(*size, 3)}; draw for this size")
    return torch.from_numpy(frame if frame.flags.writeable else frame.copy()).permute(2, 0, 1)


def _crop_all(frames: list[Tensor], crops: CropDraw) -> Tensor:
    size, half = crops.view_size, len(crops) // 2
    views = torch.empty(len(crops), 3, size, size, dtype=torch.uint8)
    for index, (top, left, height, width) in enumerate(crops.boxes.tolist()):
        view = functional.resized_crop(
            frames[index // half],
            top,
            left,
            height,
            width,
            [size, size],
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
