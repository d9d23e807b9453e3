"""Coarse optical flow from heatmaps: where each patch's heatmap peaks, without any flow head (paper section 4.4)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._tensors import need_finite

Rule = Literal["peak", "soft"]


def coarse_flow(
    heatmaps: Tensor, *, patch_size: int = 16, rule: Rule = "peak", temperature: float = 0.05, radius: int | None = 2
) -> Tensor:
    """Read one displacement per patch off the heatmaps of all patches.

    Args:
        heatmaps: (..., N, h, w): for each of the N = h·w source patches, row by row, a score of every target patch.
        patch_size: Side of a patch in pixels.
        rule: `"peak"`: the highest target patch. `"soft"`: the mean position weighted by softmax(score / temperature),
            which can fall between patches.
        temperature: Of the softmax; smaller is closer to the peak.
        radius: The softmax looks at target patches up to this many rows and columns from the peak; None: at all.

    Returns:
        (..., 2, h, w) in pixels from source to target, x to the right, then y downwards.

    Raises:
        ValueError: The heatmaps are not of all patches or not finite, or a number or name is out of range.
    """
    height, width = _checked_grid(heatmaps)
    if rule not in ("peak", "soft"):
        raise ValueError(f"rule must be 'peak' or 'soft', got {rule!r}")
    if temperature <= 0 or (radius is not None and radius < 0):
        raise ValueError(f"temperature must be above 0 and radius at least 0, got {temperature} and {radius}")
    scores = heatmaps.flatten(-2)
    rows = torch.arange(height, device=scores.device).repeat_interleave(width)
    columns = torch.arange(width, device=scores.device).repeat(height)
    places = torch.stack([columns, rows], dim=-1)  # (N, 2): x, y of every patch
    target = places[scores.argmax(dim=-1)].to(scores.dtype)
    if rule == "soft":
        if radius is not None:
            distance = (places - target[..., None, :]).abs().amax(dim=-1)
            scores = scores.masked_fill(distance > radius, -torch.inf)
        target = (scores / temperature).softmax(dim=-1) @ places.to(scores.dtype)
    return ((target - places) * patch_size).transpose(-1, -2).unflatten(-1, (height, width))


def forward_backward_confidence(forward: Tensor, backward: Tensor, *, patch_size: int = 16) -> Tensor:
    """How well the flow back from where a patch went returns to it.

    The backward flow is read, bilinearly, where the forward flow leads. With e the distance in pixels between start
    and return, the confidence is exp(-e / patch_size): 1 where the two agree, below 0.37 where they miss by more than
    a patch.

    Args:
        forward: (..., 2, h, w) in pixels, source to target, one vector per patch.
        backward: (..., 2, h, w) in pixels, target to source.
        patch_size: Side of a patch in pixels.

    Returns:
        (..., h, w), above 0 and at most 1; 0 where the forward flow leads out of the frame.

    Raises:
        ValueError: The two differ in shape.
    """
    if forward.shape != backward.shape or forward.ndim < 3 or forward.shape[-3] != 2:
        shapes = f"{tuple(forward.shape)} and {tuple(backward.shape)}"
        raise ValueError(f"forward and backward flow must both be (..., 2, h, w), got {shapes}")
    leading, (height, width) = forward.shape[:-3], forward.shape[-2:]
    there, back = forward.reshape(-1, 2, height, width), backward.reshape(-1, 2, height, width)
    x = torch.arange(width, device=there.device) + there[:, 0] / patch_size
    y = torch.arange(height, device=there.device)[:, None] + there[:, 1] / patch_size
    normalised = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    returned = F.grid_sample(back, normalised, mode="bilinear", padding_mode="border", align_corners=False)
    error = torch.linalg.vector_norm(there + returned, dim=1)
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return ((-error / patch_size).exp() * inside).reshape(*leading, height, width)


def zero_motion(heatmaps: Tensor) -> Tensor:
    """Return the flow of a world that stands still, (..., 2, h, w), of the size `coarse_flow` would give."""
    grid = _checked_grid(heatmaps)
    return heatmaps.new_zeros(*heatmaps.shape[:-3], 2, *grid)


def _checked_grid(heatmaps: Tensor) -> tuple[int, int]:
    shape = tuple(heatmaps.shape)
    if heatmaps.ndim < 3 or shape[-3] != shape[-2] * shape[-1]:
        raise ValueError(f"heatmaps must be those of all patches, (..., h·w, h, w), got {shape}")
    need_finite(heatmaps, "a heatmap")
    return shape[-2], shape[-1]
