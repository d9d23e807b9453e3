"""Flow by a correlation head on frames of any size: padding, encoding, both directions, clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.heads import MOST_UPDATES
from midway_hub.models.correlation.head import STRIDE, CorrelationHead, FlowSequence, SeenFrame
from midway_hub.models.correlation.polish import polish
from midway_hub.models.correlation.sampling import resize_flow, warp
from midway_hub.models.flow import bounded_scale
from midway_hub.models.occlusion import occluded
from midway_hub.models.tiling import Size, pad_to, round_up
from midway_hub.outputs import FlowOutput, Motion

if TYPE_CHECKING:
    from midway_hub.models.network import MidwayNetwork

Network = Literal["student", "teacher"]
Tokens = Mapping[int, Tensor]
Encode = Callable[[Tensor, Network], Tokens]

LEAST_HALVED = 128
"""Pixels that the shorter side of a halved frame has at least."""
LEAST = 64
"""Pixels that the shorter side of a frame is padded to at least."""


@dataclass(frozen=True)
class EncodedFrame:
    """A frame as source and as target: what the encoder's blocks made of it, at a patch grid, and what the head saw."""

    tokens: Tokens
    grid: Size
    seen: SeenFrame


class CorrelationFlow:
    """Estimates flow between frames of any size with a network's correlation head.

    Args:
        net: A network with such a head.
        encode: Maps frames of a multiple of the patch size to the tokens that the dynamics read.
    """

    def __init__(self, net: MidwayNetwork, encode: Encode) -> None:
        self.net, self._encode = net, encode
        self.head: CorrelationHead = net.flow_head  # type: ignore[assignment]
        self.shared = net.config.target_network == "shared"

    def see(self, frames: Tensor, network: Network) -> EncodedFrame:
        """Encode frames (B, 3, H, W), normalised, sides multiples of 8."""
        size = encoder_size(
            (frames.shape[-2], frames.shape[-1]), self.head.config.encoder_side, self.net.config.patch_size
        )
        tokens = self._encode(resized(frames, size), network)
        grid = (size[0] // self.net.config.patch_size, size[1] // self.net.config.patch_size)
        last = tokens[self.net.config.depth - 1][:, 1:].transpose(1, 2).unflatten(2, grid)
        return EncodedFrame(tokens, grid, self.head.see(frames, last))

    def between(
        self, source: EncodedFrame, target: EncodedFrame, updates: int | None = None, initial: Tensor | None = None
    ) -> tuple[FlowSequence, Motion | None]:
        """Estimate flow between encoded frames; returns every estimate, and the motion that was read."""
        motion, proj = None, None
        if self.head.config.dynamics:
            motion = self.net.dynamics(source.tokens, target.tokens, source.grid)
            proj = self.net.dynamics.motion_proj
        count = checked_updates(self.head.config.updates if updates is None else updates)
        return self.head(source.seen, target.seen, motion, proj, updates=count, initial=initial), motion

    def of_pair(
        self, source: Tensor, target: Tensor, *, updates: int | None, both: bool, initial: Tensor | None
    ) -> FlowOutput:
        """Estimate flow between frames (B, 3, H, W) of any size; see `MidwayNetwork.flow`."""
        size = (source.shape[-2], source.shape[-1])
        checked_initial(initial, (len(source), 2, *size))
        first, second = self.see(padded(source), "student"), self.see(padded(target), "teacher")
        if initial is None:
            initial = self._coarse(source, target)
        back = None
        if both:
            back = second, first
            if not self.shared:
                back = self.see(padded(target), "student"), self.see(padded(source), "teacher")
        return self._output((first, second), back, (source, target), updates, initial)

    def of_clip(
        self, frames: Iterable[Tensor], *, updates: int | None, both: bool, warm_start: bool
    ) -> Iterator[FlowOutput]:
        """Estimate flow along a clip; see `MidwayNetwork.flow_of_clip`."""
        before: tuple[Tensor, EncodedFrame] | None = None
        initial: Tensor | None = None
        for frame in frames:
            now = self.see(padded(frame), "student")
            if before is not None:
                start = self._coarse(before[0], frame) if initial is None else best_explained(before[0], frame, initial)
                target = now if self.shared else self.see(padded(frame), "teacher")
                back = None
                if both:
                    back = (now, before[1] if self.shared else self.see(padded(before[0]), "teacher"))
                output = self._output((before[1], target), back, (before[0], frame), updates, start)
                initial = carried_on(output.flow) if warm_start else None
                yield output
            before = (frame, now)

    def _output(
        self,
        pair: tuple[EncodedFrame, EncodedFrame],
        back: tuple[EncodedFrame, EncodedFrame] | None,
        frames: tuple[Tensor, Tensor],
        updates: int | None,
        initial: Tensor | None,
    ) -> FlowOutput:
        source, target = frames
        size, steps = (source.shape[-2], source.shape[-1]), self.head.config.polish
        estimate = self._last(pair, size, updates, initial)
        flow = polish(source, target, estimate[:, :2], steps)
        uncertainty = torch.log(bounded_scale(estimate[:, 2], self.head.config.scale_bounds))
        if back is None:
            return FlowOutput(flow=flow, uncertainty=uncertainty)
        backward = self._last(back, size, updates, self._coarse(target, source))[:, :2]
        backward = polish(target, source, backward, steps)
        return FlowOutput(flow, uncertainty, backward, occluded(flow, backward), occluded(backward, flow))

    def _coarse(self, source: Tensor, target: Tensor) -> Tensor | None:
        """Estimate where to start from, (B, 2, H, W): the flow of halved frames, where that explains frames better."""
        size = (source.shape[-2], source.shape[-1])
        if self.head.config.first != "coarse" or min(size) < 2 * LEAST_HALVED:
            return None
        half = (size[0] // 2, size[1] // 2)
        pair = self.see(padded(resized(source, half)), "student"), self.see(padded(resized(target, half)), "teacher")
        found = self._last(pair, half, None, None)[:, :2]
        return best_explained(source, target, resize_flow(found, size))

    def _last(
        self, pair: tuple[EncodedFrame, EncodedFrame], size: Size, updates: int | None, initial: Tensor | None
    ) -> Tensor:
        if initial is not None:
            detail = pair[0].seen.detail
            initial = pad_to(initial.to(detail.device), (4 * detail.shape[-2], 4 * detail.shape[-1]))
        sequence, _ = self.between(*pair, updates, initial)
        estimate = sequence.fine[-1][..., : size[0], : size[1]]
        need_finite(estimate, "the flow")
        return estimate


def encoder_size(frame: Size, side: int | None, patch: int) -> Size:
    """Return height and width, multiples of the patch size, at which the encoder sees a frame whose short side is to be
    at most `side`."""
    share = 1.0 if side is None else min(1.0, side / min(frame))
    height, width = (max(1, round(share * length / patch)) * patch for length in frame)
    return height, width


def padded(frames: Tensor) -> Tensor:
    """Repeat the right and the bottom edge until sides are multiples of 8, and the shorter one is not below 64."""
    height, width = (max(side, LEAST) for side in frames.shape[-2:])
    return pad_to(frames, round_up((height, width), STRIDE))


def resized(frames: Tensor, size: Size) -> Tensor:
    """Resize frames (B, 3, H, W) with antialiasing, in fp32: torch has no such resizing of bfloat16 on CPUs."""
    if frames.shape[-2:] == size:
        return frames
    small = F.interpolate(frames.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return small.to(frames.dtype)


def best_explained(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Keep flow in the cells of 8 pixels where it explains the frames better than no motion does.

    Args:
        source: (B, 3, H, W).
        target: (B, 3, H, W).
        flow: (B, 2, H, W).

    Returns:
        (B, 2, H, W), 0 in the other cells.
    """
    height, width = source.shape[-2:]
    still, moved = (
        F.avg_pool2d((seen - source).abs().mean(1, keepdim=True), STRIDE, ceil_mode=True, count_include_pad=False)
        for seen in (warp(target, torch.zeros_like(flow), outside="border"), warp(target, flow, outside="border"))
    )
    better = (moved < still).repeat_interleave(STRIDE, -2).repeat_interleave(STRIDE, -1)
    return flow * better[..., :height, :width]


def carried_on(flow: Tensor) -> Tensor:
    """Guess the next flow of a clip, (B, 2, H, W): what is at a place now came along the flow, and goes on so."""
    return warp(flow, -flow, outside="border")


def checked_updates(updates: int) -> int:
    """Return a number of updates, or refuse it with a ValueError."""
    if type(updates) is not int or not 1 <= updates <= MOST_UPDATES:
        raise ValueError(f"updates must be a whole number from 1 to {MOST_UPDATES}, got {updates!r}")
    return updates


def checked_initial(initial: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse an initial flow that is not of the frames with a ValueError."""
    if initial is None:
        return
    if not isinstance(initial, Tensor) or tuple(initial.shape) != shape or not initial.is_floating_point():
        what = tuple(initial.shape) if isinstance(initial, Tensor) else type(initial).__name__
        raise ValueError(f"initial must be flow of shape {shape}, floating point, in pixels of the frames; got {what}")
    need_finite(initial, "the initial flow")
