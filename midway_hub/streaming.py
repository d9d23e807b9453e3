"""Features, motion and flow of frames as a camera or a decoder hands them over, one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.dense.estimates import clip_flow
from midway_hub.models.network import MidwayNetwork
from midway_hub.outputs import Features, Motion
from midway_hub.processing import Geometry, MidwayImageProcessor


@dataclass(frozen=True)
class Seen:
    """What a stream tells of a frame.

    Attributes:
        number: Of the frame, from 0.
        features: The teacher's, (1, D, h, w) as a grid.
        motion: From the frame before to this one; None for the first frame, and for networks without dynamics.
        flow: (H, W, 2) float32 in pixels of the frames, from the frame before to this one; None for the first frame,
            and where flow is not asked for.
    """

    number: int
    features: Features
    motion: Motion | None
    flow: np.ndarray | None


class MotionStream:
    """Looks at frames as they come; every frame is encoded once by each network that reads it.

    Memory is that of two frames, however long the stream.

    Args:
        net: A network in eval mode.
        processor: What makes its input of frames; default: frames at their own size, as the checkpoint normalises.
        flow: Also estimate the flow from the frame before, at the size that the flow head sees best.

    Raises:
        MissingHeadError: Flow is asked for, and the network has no flow head.
        ValueError: The network is in training mode.

    Example:
        >>> stream = MotionStream(net, net.image_processor.with_short_side(224), flow=True)
        >>> for frame in camera:
        ...     seen = stream.push(frame)
    """

    def __init__(
        self, net: MidwayNetwork, processor: MidwayImageProcessor | None = None, *, flow: bool = False
    ) -> None:
        if net.training:
            raise ValueError("the network is in training mode, where results are random; call net.eval() first")
        if flow:
            net.require_flow_head()
        self.net, self.flow = net, flow
        self.processor = processor or net.image_processor.with_short_side(None)
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far, as at a cut: the next one is the first again."""
        self.number = 0
        self._geometry: Geometry | None = None
        self._before: dict[int, Tensor] | None = None
        self._frames: deque[Any] = deque()
        self._flows: Iterator[Any] = clip_flow(self.net, self._coming()) if self.flow else iter(())

    @torch.inference_mode()
    def push(self, frame: Any) -> Seen:
        """Take the next frame.

        Args:
            frame: One frame, as for `load_frame`: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W).

        Returns:
            Its features, and motion and flow from the frame before.

        Raises:
            ValueError: Not one frame, or one of another size than those before (`reset` starts anew).
        """
        inputs = self.processor([frame])
        if self._geometry not in (None, inputs.geometry):
            (height, width), (before_height, before_width) = inputs.geometry.sizes[0], self._geometry.sizes[0]
            raise ValueError(
                f"frame {self.number} is {height}×{width} (height×width), those before {before_height}×{before_width}: "
                "frames of a stream are of one size; reset() starts anew"
            )
        self._geometry = inputs.geometry
        features, motion = self._features_and_motion(inputs["pixel_values"].to(self.net.device))
        self._frames.append(frame)
        flow = next(self._flows).flow if self.flow and self.number else None
        self.number += 1
        return Seen(self.number - 1, features, motion, flow)

    def _features_and_motion(self, inputs: Tensor) -> tuple[Features, Motion | None]:
        net = self.net
        if not net.config.dynamics:
            return net.encode(inputs), None
        grid = (inputs.shape[-2] // net.config.patch_size, inputs.shape[-1] // net.config.patch_size)
        target = net.dynamics_tokens(inputs, "teacher")
        motion = None if self._before is None else net.dynamics(self._before, target, grid)
        self._before = target if net.config.target_network == "shared" else net.dynamics_tokens(inputs, "student")
        last = target[net.config.depth - 1]
        patches = last[:, 1:].transpose(1, 2).unflatten(2, grid)
        return Features(last=patches, cls=last[:, 0], layers=(), grid=grid), motion

    def _coming(self) -> Iterator[Any]:
        """Hand frames on as they are pushed: a flow is asked for when its two frames are there."""
        while self._frames:
            yield self._frames.popleft()


__all__ = ["MotionStream", "Seen"]
