"""What of flow can be relied on: targets within the frame, and flow there and back that agree.

Flow is (B, 2, H, W) in pixels, x then y; pixel (0, 0) has its centre at (0, 0) and reaches from -0.5 to 0.5. NaN is not
known, and nothing relies on it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub.models.correlation.sampling import places, warp
from midway_hub.models.occlusion import occluded
from midway_hub.training.data.flow_provider.settings import (
    DDFLOW_OFFSET,
    DDFLOW_SLOPE,
    FLOWE_PIXELS,
    FlowProviderSettings,
)

KNOWN = 1 - 1e-4
"""Weight of known pixels from which on all of those around a place are known: only rounding keeps it from 1."""


def valid_pixels(flow: Tensor, backward: Tensor | None, settings: FlowProviderSettings) -> Tensor:
    """Tell which pixels are known to be seen in the other frame, as far as settings ask.

    Args:
        flow: (B, 2, H, W).
        backward: (B, 2, H, W), the flow back; None only where `settings.occlusion` is `none`.
        settings: Which test, and its numbers.

    Returns:
        (B, H, W) bool.
    """
    if settings.occlusion == "none":
        return in_frame(flow)
    assert backward is not None
    if settings.occlusion == "forward_backward":
        return ~forward_backward_occluded(flow, backward, pixels=settings.occlusion_pixels)
    return ~ddflow_occluded(flow, backward, slope=settings.occlusion_slope, offset=settings.occlusion_offset)


def in_frame(flow: Tensor) -> Tensor:
    """Tell which pixels' targets lie within the frame, to its very edge: (B, H, W) bool, False where not known."""
    height, width = flow.shape[-2:]
    x, y = (places(flow) + flow).unbind(1)
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def forward_backward_error(flow: Tensor, backward: Tensor) -> Tensor:
    """Return how far from where it began the flow back leads from the flow's target, |f(x) + b(x + f(x))|.

    Args:
        flow: (B, 2, H, W).
        backward: (B, 2, H, W); beyond the frame it is as at its edge.

    Returns:
        (B, H, W) float32 pixels; NaN where either flow is not known.
    """
    along, back, known = _there_and_back(flow, backward)
    return torch.where(known, (along + back).norm(dim=1), torch.nan)


def forward_backward_occluded(flow: Tensor, backward: Tensor, *, pixels: float = FLOWE_PIXELS) -> Tensor:
    """Tell which pixels the target does not show: there and back leads further than `pixels` away (Xiong et al. 2021).

    Args:
        flow: (B, 2, H, W).
        backward: (B, 2, H, W).
        pixels: The largest distance that is let pass.

    Returns:
        (B, H, W) bool; True as well where the target is out of the frame, or either flow is not known.
    """
    return ~(forward_backward_error(flow, backward) <= pixels) | ~in_frame(flow)


def ddflow_occluded(
    flow: Tensor, backward: Tensor, *, slope: float = DDFLOW_SLOPE, offset: float = DDFLOW_OFFSET
) -> Tensor:
    """Tell which pixels the target does not show: |f + b(f)|^2 > slope (|f|^2 + |b(f)|^2) + offset (Liu et al. 2019).

    Args:
        flow: (B, 2, H, W).
        backward: (B, 2, H, W).
        slope: Alpha 1.
        offset: Alpha 2, in squared pixels.

    Returns:
        (B, H, W) bool; True as well where the target is out of the frame, or either flow is not known.
    """
    along, _, known = _there_and_back(flow, backward)
    return occluded(along, backward.nan_to_num(0.0), slope=slope, offset=offset) | ~known


def _there_and_back(flow: Tensor, backward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The flow, 0 where it is not known; the flow back at its targets; and whether both are known, (B, H, W)."""
    known, known_back = (each.isfinite().all(dim=1, keepdim=True) for each in (flow, backward))
    along = torch.where(known, flow.float(), 0.0)
    both = torch.cat([torch.where(known_back, backward.float(), 0.0), known_back.float()], dim=1)
    found = warp(both, along, outside="border")
    return along, found[:, :2], known[:, 0] & (found[:, 2] >= KNOWN)


__all__ = [
    "ddflow_occluded",
    "forward_backward_error",
    "forward_backward_occluded",
    "in_frame",
    "valid_pixels",
    "warp",
]
