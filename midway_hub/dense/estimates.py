"""Flow and classes of frames as they are: at their own size, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, tee
from typing import Any, Literal

import numpy as np
import torch

from midway_hub.dense.reach import FlowSize, flow_reach, flow_size, is_out_of_reach
from midway_hub.models.flow import Tile
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import Geometry, MidwayImageProcessor


@dataclass(frozen=True)
class FlowEstimate:
    """The flow from one frame to another.

    Attributes:
        flow: (H, W, 2) float32 in pixels of the frames, x to the right, then y downwards.
        reach: How far motion may go, in pixels of the frames, to be told by this network at this size.
        out_of_reach: Whether it probably went further, see `is_out_of_reach`.
    """

    flow: np.ndarray
    reach: float
    out_of_reach: bool


def flow_between(
    net: MidwayNetwork,
    frames: Sequence[Any],
    *,
    size: FlowSize = "default",
    tile: Tile = "default",
    overlap: float | None = None,
) -> np.ndarray:
    """Estimate the flow from one frame to another.

    Args:
        net: A network with a flow head.
        frames: Two frames of one size, each as for `MidwayImageProcessor`.
        size: Short side in pixels that the network sees the frames at; default: as `flow_size` says; None: their own.
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
    (estimate,) = clip_flow(net, frames, size=size, tile=tile, overlap=overlap)
    return estimate.flow


@torch.inference_mode()
def clip_flow(
    net: MidwayNetwork,
    frames: Iterable[Any],
    *,
    size: FlowSize = "default",
    tile: Tile = "default",
    overlap: float | None = None,
) -> Iterator[FlowEstimate]:
    """Estimate the flow between frames that follow each other, as they come, in one pass; memory is that of a pair.

    Args:
        net: A network with a flow head.
        frames: Frames of one size, each as for `MidwayImageProcessor`.
        size: As for `flow_between`.
        tile: As for `flow_between`.
        overlap: As for `flow_between`.

    Yields:
        The flow from the first frame to the second, from the second to the third, and so on.

    Raises:
        ValueError: Frames of different sizes; and as `MidwayNetwork.flow`.
        MissingHeadError: The network has no flow head.
    """
    net.require_flow_head()
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        return
    processor, geometry = _fitted(net, first, size, tile)
    seen, shown = tee(_model_inputs(net, processor, geometry, chain([first], coming)))
    reach = flow_reach(net, tile)
    placement = geometry.placements[0]
    for (source, target), output in zip(
        pairwise(shown), net.flow_of_clip(seen, tile=tile, overlap=overlap), strict=True
    ):
        own = processor.undo_flow(output.flow, geometry)
        yield FlowEstimate(
            own[0].movedim(0, -1).float().cpu().numpy(),
            reach * min(placement.source) / min(placement.resized),
            is_out_of_reach(source, target, output.flow, reach),
        )


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


def _fitted(net: MidwayNetwork, frame: Any, size: FlowSize, tile: Tile) -> tuple[MidwayImageProcessor, Geometry]:
    """Choose the processor for frames like this one, and say where it puts them."""
    processor = _processor(net, None)
    own = processor([frame]).geometry
    short_side = flow_size(net, own.sizes[0], size, tile)
    if short_side == min(own.sizes[0]):
        return processor, own
    processor = _processor(net, short_side)
    return processor, processor([frame]).geometry


def _model_inputs(
    net: MidwayNetwork, processor: MidwayImageProcessor, geometry: Geometry, frames: Iterable[Any]
) -> Iterator[torch.Tensor]:
    for number, frame in enumerate(frames):
        inputs = processor([frame])
        if inputs.geometry != geometry:
            (height, width), (first_height, first_width) = inputs.geometry.sizes[0], geometry.sizes[0]
            raise ValueError(
                f"the frames must be of one size (height×width): frame {number} is {height}×{width}, the first "
                f"{first_height}×{first_width}"
            )
        yield inputs["pixel_values"].to(net.device)


def _processor(net: MidwayNetwork, size: int | None) -> MidwayImageProcessor:
    """Fit frames to the short side that is wanted, if any; the network pads them itself."""
    return net.image_processor.with_short_side(size, multiple=1)
