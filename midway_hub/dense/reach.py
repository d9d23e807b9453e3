"""At which size a flow head sees frames best, how far motion may go there, and whether an estimate met that limit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from midway_hub.heads import CorrelationHeadConfig
from midway_hub.models.correlation.head import STRIDE
from midway_hub.models.correlation.sampling import places, warp
from midway_hub.models.flow import Tile, flow_window
from midway_hub.models.network import MidwayNetwork

FlowSize = int | Literal["default", "half"] | None
"""Short side in pixels that a network sees frames at, `"default"` for what suits its flow head, `"half"` for half of
theirs but no less than 64, None for their own."""

WINDOWS = 2
"""Of a head that looks through windows, along the short side; `benchmarks/flow_size.py` measures what it is worth."""
LARGEST = 384
"""Short side in pixels of the frames that flow heads are trained on, or a little more (paper, App. B.4: 320)."""
LEAST_HALF = 64
REACH = 1 / 8
"""Share of a window's side that motion is found up to; beyond it, estimates fall behind and then get lost."""
NEAR = 0.8
MUCH = 0.1
UNEXPLAINED = 0.6


def flow_size(net: MidwayNetwork, frame: tuple[int, int], size: FlowSize = "default", tile: Tile = "default") -> int:
    """Return the short side in pixels at which a network sees frames to estimate flow.

    By default, their own for a correlation head. Of the other kind, two windows of a head that looks through windows,
    and 384 pixels for one that sees whole frames; never more than 384, and never more than the frames have.

    Args:
        net: A network with a flow head.
        frame: Height and width of the frames.
        size: What was asked for.
        tile: As for `MidwayNetwork.flow`.
    """
    if size == "half":
        return min(max(LEAST_HALF, min(frame) // 2), min(frame))
    if size != "default":
        return min(frame) if size is None else size
    if isinstance(net.flow_head.config, CorrelationHeadConfig):
        return min(frame)
    window = flow_window(tile, net.flow_head.config, net.config.patch_size)
    return min(LARGEST if window is None else WINDOWS * min(window), LARGEST, *frame)


def flow_reach(net: MidwayNetwork, tile: Tile = "default") -> float:
    """Return how far motion may go, in pixels of what the network sees, to be told at all.

    Heads that see whole frames learnt from crops, which serve as their windows here; a correlation head tells motion of
    up to half a crop, if it looks as far.
    """
    head = net.flow_head.config
    if isinstance(head, CorrelationHeadConfig):
        return min(head.radius * STRIDE * 2 ** (head.levels - 1), min(head.tile) // 2)
    return REACH * min(flow_window(tile, head, net.config.patch_size) or head.tile)


def is_out_of_reach(source: Tensor, target: Tensor, flow: Tensor, reach: float) -> bool:
    """Tell whether motion was probably too long for an estimate to be right.

    That is so where a tenth of the frame moves about as far as can be told, and moving the target back along the flow
    leaves most of what differs between the frames.

    Args:
        source: (1, 3, H, W), what the network saw.
        target: (1, 3, H, W).
        flow: (1, 2, H, W) in its pixels.
        reach: From `flow_reach`.
    """
    source, target, flow = source.float(), target.float(), flow.float()
    if (flow.norm(dim=1) > NEAR * reach).float().mean() < MUCH:
        return False
    height, width = flow.shape[-2:]
    columns, rows = (places(flow) + flow)[0]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    moved = warp(target, flow, outside="border")
    left, before = (((other - source).abs().mean(1)[0] * inside).sum() for other in (moved, target))
    return bool(left > UNEXPLAINED * before)
