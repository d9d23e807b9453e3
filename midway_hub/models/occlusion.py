"""What of a frame another one does not show, by forward and backward flow that disagree."""

from __future__ import annotations

from torch import Tensor

from midway_hub.models.correlation.sampling import places, warp

SLOPE, OFFSET = 0.01, 0.5


def occluded(flow: Tensor, backward: Tensor, *, slope: float = SLOPE, offset: float = OFFSET) -> Tensor:
    """Tell which pixels of the source the target hides or does not hold.

    Going along the flow and back leads elsewhere: |f(x) + b(x + f(x))|^2 is above 0.01 (|f|^2 + |b|^2) + 0.5
    (Sundaram, Brox and Keutzer 2010, section 3), or the flow leaves the frame.

    Args:
        flow: (B, 2, H, W) from source to target in pixels.
        backward: (B, 2, H, W) from target to source.
        slope: What the squared lengths count; DDFlow takes 0.1 (Liu et al. 2019).
        offset: Squared pixels that are always allowed.

    Returns:
        (B, H, W) bool.
    """
    height, width = flow.shape[-2:]
    flow = flow.float()
    back = warp(backward, flow, outside="border")
    squares = ((flow + back) ** 2).sum(1), (flow**2).sum(1), (back**2).sum(1)
    x, y = (places(flow) + flow).unbind(1)
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return (squares[0] > slope * (squares[1] + squares[2]) + offset) | outside
