"""Losses of flow without ground truth: census and edge-aware smoothness (UFlow, Jonschkowski et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.models.correlation.sampling import warp

RADIUS = 3  # the census looks at 7x7 neighbours
SOFTNESS, DISAGREEMENT = 0.81, 0.1
EDGE = 150.0


def robust(values: Tensor) -> Tensor:
    """Return (|x| + 0.01)^0.4."""
    return (values.abs() + 0.01).pow(0.4)


def grey(frames: Tensor) -> Tensor:
    """Turn frames (B, 3, H, W) in [0, 1] into luma (B, 1, H, W) on a scale of 255."""
    weights = frames.new_tensor((0.2989, 0.587, 0.114)).view(1, 3, 1, 1)
    return 255 * (frames * weights).sum(1, keepdim=True)


def census(frames: Tensor) -> Tensor:
    """Describe every pixel by how it differs from its neighbours, softly signed: (B, 49, H, W)."""
    luma = grey(frames)
    height, width = luma.shape[-2:]
    padded = F.pad(luma, (RADIUS,) * 4)
    side = 2 * RADIUS + 1
    near = [padded[:, :, y : y + height, x : x + width] for y in range(side) for x in range(side)]
    difference = torch.cat(near, 1) - luma
    return difference / (SOFTNESS + difference**2).sqrt()


def census_distance(one: Tensor, other: Tensor) -> Tensor:
    """Compare frames (B, 3, H, W) in [0, 1] pixel by pixel: (B, 1, H, W), 0 where all neighbours differ alike.

    Brightness and contrast that change everywhere alike hardly count.
    """
    squared = (census(one) - census(other)) ** 2
    return (squared / (DISAGREEMENT + squared)).sum(1, keepdim=True)


def photometric(source: Tensor, target: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """Mean robust census distance of the source and the target moved back along the flow, over what is visible.

    Args:
        source: (B, 3, H, W) in [0, 1].
        target: (B, 3, H, W) in [0, 1].
        flow: (B, 2, H, W) in pixels, source to target.
        visible: (B, H, W) bool, pixels that the target shows; a border of 3 pixels never counts.

    Returns:
        The mean, without dimensions; 0 where nothing is visible.
    """
    distance = robust(census_distance(source, warp(target, flow, outside="border")))[:, 0]
    inner = torch.zeros_like(visible)
    inner[:, RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    counted = visible & inner
    return torch.where(counted, distance, 0.0).sum() / counted.sum().clamp(min=1)


def smoothness(source: Tensor, flow: Tensor, *, order: int = 2) -> Tensor:
    """Mean robust change of flow along rows and columns, less where the source has edges.

    Args:
        source: (B, 3, H, W) in [0, 1].
        flow: (B, 2, H, W) in pixels.
        order: 1 for changes, which penalises all but shifts, 2 for changes of changes, which lets affine flow pass.

    Raises:
        ValueError: Another order.
    """
    if order not in (1, 2):
        raise ValueError(f"smoothness is of first or second order, got {order}")
    total = flow.new_zeros(())
    for axis in (-1, -2):
        change, edge = flow.diff(n=order, dim=axis), _difference(source, order, axis)
        weight = (-(EDGE * edge).abs().mean(1, keepdim=True)).exp()
        total = total + (weight * robust(change)).mean() / 2
    return total


def _difference(frames: Tensor, stride: int, axis: int) -> Tensor:
    length = frames.shape[axis] - stride
    return frames.narrow(axis, stride, length) - frames.narrow(axis, 0, length)
