"""Flow and classes of frames as they are: at their own size, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from midway_hub.models.flow import Tile
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import MidwayImageProcessor


@torch.inference_mode()
def flow_between(
    net: MidwayNetwork,
    frames: Sequence[Any],
    *,
    size: int | None = None,
    tile: Tile = "default",
    overlap: float | None = None,
) -> np.ndarray:
    """Estimate the flow from one frame to another.

    Args:
        net: A network with a flow head.
        frames: Two frames of one size, each as for `MidwayImageProcessor`.
        size: Short side in pixels that the network sees the frames at; default: as they are.
        tile: As for `MidwayNetwork.flow`.
        overlap: As for `MidwayNetwork.flow`.

    Returns:
        (H, W, 2) float32 in pixels of the frames, x to the right, then y downwards.

    Raises:
        ValueError: Not two frames of one size; and as `MidwayNetwork.flow`.
        MissingHeadError: The network has no flow head.
    """
    if len(frames) != 2:
        raise ValueError(f"flow is between two frames, got {len(frames)}")
    processor = _processor(net, size)
    inputs = processor(list(frames))
    source, target = inputs["pixel_values"].to(net.device).split(1)
    flow = net.flow(source, target, tile=tile, overlap=overlap).flow
    own = processor.undo_flow(flow, inputs.geometry[:1])
    return own[0].movedim(0, -1).float().cpu().numpy()


@torch.inference_mode()
def labels_of(
    net: MidwayNetwork,
    frame: Any,
    *,
    size: int | None = None,
    slide: tuple[int, int] | Literal["default"] | None = "default",
) -> np.ndarray:
    """Tell the class of every pixel of a frame.

    Args:
        net: A network with a segmentation head.
        frame: As for `MidwayImageProcessor`.
        size: Short side in pixels that the network sees the frame at; default: as it is.
        slide: As for `MidwayNetwork.segment`.

    Returns:
        (H, W) uint8, class numbers.

    Raises:
        ValueError: As `MidwayNetwork.segment`.
        MissingHeadError: The network has no segmentation head.
    """
    processor = _processor(net, size)
    inputs = processor([frame])
    labels = net.segment(inputs["pixel_values"].to(net.device), slide=slide).labels
    return processor.undo(labels.to(torch.uint8), inputs.geometry, mode="nearest", fill=255)[0].cpu().numpy()


def _processor(net: MidwayNetwork, size: int | None) -> MidwayImageProcessor:
    """Fit frames to the short side that is wanted, if any; the network pads them itself."""
    return net.image_processor.with_short_side(size, multiple=1)
