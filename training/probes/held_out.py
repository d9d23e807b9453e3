"""Frame pairs that training never sees, with exact flow and labels; made once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from midway_hub.outputs import TensorRecord
from midway_hub.training.data.views import normalise


class RenderedPairs(Protocol):
    """What a synthetic world gives of the first frame and the second."""

    @property
    def first(self) -> Tensor:
        """(B, 3, H, W) uint8."""
        ...

    @property
    def second(self) -> Tensor:
        """(B, 3, H, W) uint8."""
        ...

    @property
    def flow(self) -> Tensor:
        """(B, 2, H, W) pixels from first to second."""
        ...

    @property
    def occluded(self) -> Tensor:
        """(B, H, W) bool, of the first frame."""
        ...

    @property
    def labels(self) -> Tensor:
        """(B, H, W) uint8, of the first frame."""
        ...


@dataclass(frozen=True)
class HeldOutPairs(TensorRecord):
    """Frame pairs as the network takes them, with their truth.

    Attributes:
        source: (B, 3, H, W) float32, ImageNet-normalised; H and W whole patches.
        target: (B, 3, H, W), the later frame.
        flow: (B, 2, H, W) pixels from source to target, x to the right, then y downwards.
        visible: (B, H, W) bool: source pixels that are seen in the target, inside its crop.
        labels: (B, H, W) int64, class of every source pixel.
    """

    source: Tensor
    target: Tensor
    flow: Tensor
    visible: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def first(self, count: int) -> HeldOutPairs:
        """Return the first `count` pairs."""
        return self.map(lambda tensor: tensor[:count])

    def batches(self, size: int, device: torch.device) -> Iterator[HeldOutPairs]:
        """Yield the pairs, `size` at a time, on `device`."""
        for start in range(0, len(self), size):
            end = start + size
            yield self.map(lambda tensor: tensor[start:end].to(device))  # noqa: B023 called at once


def held_out_pairs(rendered: RenderedPairs, *, size: int = 224, patch_size: int = 16) -> HeldOutPairs:
    """Crop rendered pairs to whole patches around their centre and normalise them.

    Args:
        rendered: Frames and truth.
        size: Longest side of the crop in pixels.
        patch_size: Side of a patch in pixels.

    Raises:
        ValueError: The frames are smaller than a patch.
    """
    height, width = (min(side, size) // patch_size * patch_size for side in rendered.first.shape[-2:])
    if not height or not width:
        sides = tuple(rendered.first.shape[-2:])
        raise ValueError(f"held-out frames of {sides} do not hold a patch of {patch_size} pixels; make them larger")
    top, left = (rendered.first.shape[-2] - height) // 2, (rendered.first.shape[-1] - width) // 2

    def crop(tensor: Tensor) -> Tensor:
        return tensor[..., top : top + height, left : left + width]

    flow = crop(rendered.flow).float()
    return HeldOutPairs(
        source=normalise(crop(rendered.first)),
        target=normalise(crop(rendered.second)),
        flow=flow,
        visible=~crop(rendered.occluded) & _stays_inside(flow),
        labels=crop(rendered.labels).long(),
    )


def _stays_inside(flow: Tensor) -> Tensor:
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
