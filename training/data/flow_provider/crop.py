"""Flow of a frame, cut to a view of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.training.data.flow_provider.masks import KNOWN, in_frame
from midway_hub.training.data.views.boxes import Box


def crop_flow(flow: Tensor, valid: Tensor, box: Box, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut flow to a box that both frames share, and resize it bilinearly, without smoothing.

    Args:
        flow: (2, H, W) in pixels of the frame; NaN where it is not known.
        valid: (H, W) bool.
        box: Top, left, height and width in pixels, within the frame.
        size: Height and width of the view.

    Returns:
        (2, h, w) float32 in pixels of the view, 0 where a pixel that it is made of is not valid; and (h, w) bool,
        where all of these are valid and the target lies within the view, to its very edge.

    Raises:
        ValueError: The box is not within the frame.
    """
    top, left, height, width = box
    if min(top, left) < 0 or min(height, width) < 1 or top + height > flow.shape[1] or left + width > flow.shape[2]:
        raise ValueError(f"the box {box} (top, left, height, width) is not within flow of {tuple(flow.shape)}")
    window = slice(top, top + height), slice(left, left + width)
    cut = flow[:, *window].float()
    known = valid[window] & cut.isfinite().all(dim=0)
    planes = torch.cat([torch.where(known, cut, 0.0), known[None].float()])
    resized = F.interpolate(planes[None], size=size, mode="bilinear", align_corners=False)[0]
    whole = resized[2] >= KNOWN
    moved = resized[:2] * resized.new_tensor([size[1] / width, size[0] / height]).view(2, 1, 1)
    moved = torch.where(whole, moved, 0.0)
    return moved, whole & in_frame(moved[None])[0]
