"""The last fraction of a pixel: Gauss-Newton steps on the frames themselves (Lucas and Kanade 1981)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.models.correlation.sampling import warp

RADIUS = 4
"""Of the windows that flow is taken to be constant in."""
RIDGE = 3e-3
"""Keeps flow where a window shows no texture; of squared differences of normalised frames."""
MOST = 0.25
"""Pixels that a step goes at most: flow that is farther off is for the network to mend."""


def polish(source: Tensor, target: Tensor, flow: Tensor, steps: int) -> Tensor:
    """Move flow to where the frames differ least, pixel by pixel; a step that makes them differ more is not taken.

    Brightness that changes within a window alike does not count.

    Args:
        source: (B, 3, H, W), normalised.
        target: (B, 3, H, W), normalised.
        flow: (B, 2, H, W) in pixels, source to target.
        steps: How many, 0 for none.

    Returns:
        (B, 2, H, W) in fp32.
    """
    if not steps:
        return flow
    first, second = (frames.float().mean(1, keepdim=True) for frames in (source, target))
    warped, left, error = _difference(first, second, flow)
    for _ in range(steps):
        moved = flow + _step(warped, left)
        again = _difference(first, second, moved)
        better = again[2] < error
        flow = torch.where(better, moved, flow)
        warped, left, error = (
            torch.where(better, new, old) for new, old in zip(again, (warped, left, error), strict=True)
        )
    return flow


def _difference(source: Tensor, target: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the target moved back, what it differs by without the window's mean, and the window's mean square."""
    warped = warp(target, flow, outside="border")
    difference = warped - source
    left = difference - _mean(difference)
    return warped, left, _mean(left * left)


def _step(warped: Tensor, left: Tensor) -> Tensor:
    """Solve the windows' normal equations for the change of flow, (B, 2, H, W), no longer than `MOST`."""
    padded = F.pad(warped, (1, 1, 1, 1), mode="replicate")
    slopes = torch.cat(
        [padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]], 1
    )
    slopes = slopes / 2
    right, down = (slopes - _mean(slopes)).split(1, 1)
    sums = _mean(torch.cat([right * right, right * down, down * down, right * left, down * left], 1))
    xx, xy, yy, bx, by = sums.split(1, 1)
    xx, yy = xx + RIDGE, yy + RIDGE
    change = torch.cat([xy * by - yy * bx, xy * bx - xx * by], 1) / (xx * yy - xy * xy)
    length = (change * change).sum(1, keepdim=True).sqrt()
    return change * (MOST / length.clamp_min(MOST))


def _mean(maps: Tensor) -> Tensor:
    """Return the mean over windows, borders repeated; along one axis after the other, which is much faster."""
    side = 2 * RADIUS + 1
    rows = F.avg_pool2d(F.pad(maps, (RADIUS, RADIUS, 0, 0), mode="replicate"), (1, side), 1)
    return F.avg_pool2d(F.pad(rows, (0, 0, RADIUS, RADIUS), mode="replicate"), (side, 1), 1)
