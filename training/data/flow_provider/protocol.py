"""What every provider of flow is to those who ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Names = Sequence[tuple[str, str]]
"""Of every pair of a batch, what its two frames are called, such as `("clip/00001", "clip/00016")`."""


class FlowProvider(Protocol):
    """Tells where the pixels of frames are in other frames.

    Attributes:
        device: Where it computes.
    """

    device: torch.device

    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow from each first frame to its second one.

        Args:
            first: (B, 3, H, W) uint8 RGB, not augmented, any size, on any device.
            second: (B, 3, H, W) uint8 RGB.
            names: What the frames are called; only those who look flow up by name read it.

        Returns:
            (B, 2, H, W) float32 pixels, x to the right, then y down, NaN in both where it is not known; on the frames'
            device.

        Raises:
            ValueError: Other frames than these.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return all that the numbers depend on beside the frames, JSON-able; nothing of where it runs or lies."""
        ...


def check_frames(first: Tensor, second: Tensor) -> None:
    """Refuse frames that no flow is between.

    Raises:
        ValueError: They are not (B, 3, H, W) uint8, there are none, or the two differ in shape or device.
    """
    for frames in (first, second):
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8 or not frames.numel():
            raise ValueError(
                f"flow is between frames (B, 3, H, W) uint8 RGB, got {tuple(frames.shape)} {frames.dtype}; "
                "hand over the frames as they were read, not normalised views"
            )
    if first.shape != second.shape or first.device != second.device:
        raise ValueError(
            f"flow is between frames of one shape and device, got {tuple(first.shape)} on {first.device} and "
            f"{tuple(second.shape)} on {second.device}"
        )


def only_known(flow: Tensor) -> Tensor:
    """Return flow (B, 2, H, W) as float32 with NaN in both numbers where either is not finite."""
    flow = flow.float()
    return torch.where(flow.isfinite().all(dim=1, keepdim=True), flow, torch.nan)
