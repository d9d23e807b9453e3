"""Flow and classes of frames as they are: at their own size, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, tee
from typing import Any, Literal

import numpy as np
import torch

from midway_hub.dense.reach import FlowSize, flow_reach, flow_size, is_out_of_reach
from midway_hub.flow_peers import FlowPeer
from midway_hub.models.flow import Tile
from midway_hub.models.network import MidwayNetwork
from midway_hub.models.occlusion import occluded
from midway_hub.processing import Geometry, MidwayImageProcessor, load_frame


@dataclass(frozen=True)
class FlowEstimate:
    """The flow from one frame to another.

    Attributes:
        flow: (H, W, 2) float32 in pixels of the frames, x to the right, then y downwards.
        reach: How far motion may go, in pixels of the frames, to be told by this network at this size; None: not known.
        out_of_reach: Whether it probably went further, see `is_out_of_reach`.
        backward: (H, W, 2) float32, the flow back, where both were asked for.
        occluded: (H, W) bool, pixels that the other frame does not show, by the disagreement of both.
    """

    flow: np.ndarray
    reach: float | None
    out_of_reach: bool
    backward: np.ndarray | None = None
    occluded: np.ndarray | None = None


def flow_between(
    net: MidwayNetwork | FlowPeer,
    frames: Sequence[Any],
    *,
    size: FlowSize = "default",
    tile: Tile = "default",
    overlap: float | None = None,
    updates: int | None = None,
) -> np.ndarray:
    """Estimate the flow from one frame to another.

    Args:
        net: A network with a flow head, or an estimator by others, which sees frames at their own size.
        frames: Two frames of one size, each as for `MidwayImageProcessor`.
        size: Short side in pixels that the network sees the frames at; default: as `flow_size` says; None: their own.
        tile: As for `MidwayNetwork.flow`.
        overlap: As for `MidwayNetwork.flow`.
        updates: As for `MidwayNetwork.flow`.

    Returns:
        (H, W, 2) float32 in pixels of the frames, x to the right, then y downwards.

    Raises:
        ValueError: Not two frames of one size; and as `MidwayNetwork.flow`.
        MissingHeadError: The network has no flow head.
    """
    if len(frames) != 2:
        raise ValueError(f"flow is between two frames, got {len(frames)}")
    (estimate,) = clip_flow(net, frames, size=size, tile=tile, overlap=overlap, updates=updates)
    return estimate.flow


def check_flow_options(
    net: MidwayNetwork | FlowPeer,
    *,
    size: FlowSize = "default",
    tile: Tile = "default",
    overlap: float | None = None,
    updates: int | None = None,
    both: bool = False,
) -> None:
    """Refuse options of `clip_flow` that a network or an estimator by others does not take, before any frame is read.

    Args:
        net: As for `clip_flow`; so are the options. All take `both`.

    Raises:
        ValueError: An option makes no sense, or is one of another kind of estimator.
        MissingHeadError: The network has no flow head.
    """
    if not isinstance(net, MidwayNetwork):
        asked = {"size": size, "tile": tile, "overlap": overlap, "updates": updates}
        if given := [name for name, value in asked.items() if value not in ("default", None)]:
            raise ValueError(f"{net.name} has no {' and no '.join(given)}: it sees whole frames at their own size")
        return
    net.check_flow_options(tile=tile, overlap=overlap, updates=updates)


@torch.inference_mode()
def clip_flow(
    net: MidwayNetwork | FlowPeer,
    frames: Iterable[Any],
    *,
    size: FlowSize = "default",
    tile: Tile = "default",
    overlap: float | None = None,
    updates: int | None = None,
    both: bool = False,
) -> Iterator[FlowEstimate]:
    """Estimate the flow between frames that follow each other, as they come, in one pass; memory is that of a pair.

    A correlation head starts from the flow before, carried on.

    Args:
        net: A network with a flow head, or an estimator by others, which sees frames at their own size.
        frames: Frames of one size, each as for `MidwayImageProcessor`.
        size: As for `flow_between`.
        tile: As for `flow_between`.
        overlap: As for `flow_between`.
        updates: As for `flow_between`.
        both: Estimate the flow back, too, and tell by both what is occluded.

    Yields:
        The flow from the first frame to the second, from the second to the third, and so on.

    Raises:
        ValueError: Frames of different sizes; and as `MidwayNetwork.flow`.
        MissingHeadError: The network has no flow head.
    """
    check_flow_options(net, size=size, tile=tile, overlap=overlap, updates=updates, both=both)
    if not isinstance(net, MidwayNetwork):
        yield from _of_peer(net, frames, both)
        return
    coming = iter(frames)
    first = next(coming, None)
    if first is None:
        return
    processor, geometry = _fitted(net, first, size, tile)
    seen, shown = tee(_model_inputs(net, processor, geometry, chain([first], coming)))
    reach = flow_reach(net, tile)
    placement = geometry.placements[0]
    outputs = net.flow_of_clip(seen, tile=tile, overlap=overlap, updates=updates, both=both)
    for (source, target), output in zip(pairwise(shown), outputs, strict=True):
        estimate = FlowEstimate(
            _channels_last(processor.undo_flow(output.flow, geometry)),
            reach * min(placement.source) / min(placement.resized),
            is_out_of_reach(source, target, output.flow, reach),
        )
        if output.backward is not None:
            estimate = with_backward(estimate, _channels_last(processor.undo_flow(output.backward, geometry)))
        yield estimate


def with_backward(estimate: FlowEstimate, backward: np.ndarray) -> FlowEstimate:
    """Add the flow back (H, W, 2) and what both say is occluded."""
    forward, back = (torch.from_numpy(flow).movedim(-1, 0)[None] for flow in (estimate.flow, backward))
    return replace(estimate, backward=backward, occluded=occluded(forward, back)[0].numpy())


def _of_peer(peer: FlowPeer, frames: Iterable[Any], both: bool) -> Iterator[FlowEstimate]:
    for first, second in pairwise(as_pixels(load_frame(frame)) for frame in frames):
        if first.shape != second.shape:
            raise ValueError(f"the frames must be of one size (height×width): {first.shape[:2]} and {second.shape[:2]}")
        estimate = FlowEstimate(np.moveaxis(peer(first, second), 0, -1), None, False)
        yield with_backward(estimate, np.moveaxis(peer(second, first), 0, -1)) if both else estimate


def as_pixels(frame: torch.Tensor) -> np.ndarray:
    """Turn a frame (3, H, W) in [0, 1] into (H, W, 3) uint8."""
    return (frame.movedim(0, -1).numpy() * 255).round().astype(np.uint8)


def _channels_last(flow: torch.Tensor) -> np.ndarray:
    return flow[0].movedim(0, -1).float().cpu().numpy()


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
