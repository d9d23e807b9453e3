"""Places of a frame, warping along flow, and bringing flow to a finer grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def places(like: Tensor) -> Tensor:
    """Return the centres of the cells of maps (B, C, h, w): (1, 2, h, w), x then y, the first one's 0."""
    height, width = like.shape[-2:]
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def warp(maps: Tensor, flow: Tensor, *, outside: str = "zeros") -> Tensor:
    """Fetch what flow points at: `maps` of the target, seen from the source.

    Args:
        maps: (B, C, h, w).
        flow: (B, 2, h, w) in cells, x then y.
        outside: What is fetched from beyond the frame: `zeros`, or its `border`.

    Returns:
        (B, C, h, w) in fp32, bilinear.
    """
    height, width = maps.shape[-2:]
    x, y = (places(maps) + flow).unbind(1)
    where = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(maps.float(), where, align_corners=False, padding_mode=outside)


def upsample_convex(flow: Tensor, weights: Tensor, factor: int) -> Tensor:
    """Bring flow to a finer grid, every fine cell a convex combination of nine coarse ones (RAFT, section 3.3).

    Args:
        flow: (B, C, h, w) in coarse cells.
        weights: (B, 9 * factor^2, h, w) before the softmax.
        factor: Fine cells per coarse one, along each axis.

    Returns:
        (B, C, factor * h, factor * w) in fine cells, fp32.
    """
    batch, channels, height, width = flow.shape
    shares = weights.float().view(batch, 1, 9, factor, factor, height, width).softmax(2)
    padded = F.pad(factor * flow.float(), (1, 1, 1, 1), mode="replicate")
    near = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    fine = (shares * torch.stack(near, 2)[:, :, :, None, None]).sum(2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(batch, channels, factor * height, factor * width)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize flow (B, 2, h, w) bilinearly to another grid of the same frame, vectors in cells of the new one."""
    scale = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, size=size, mode="bilinear", align_corners=False, antialias=True) * scale
