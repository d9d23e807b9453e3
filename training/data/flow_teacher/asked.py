"""The flow that a method asks for, cut to the views that it goes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.models.correlation.sampling import places
from midway_hub.training.data.clip import Clip, KnownFlow
from midway_hub.training.data.flow_teacher.teacher import FlowTeacher
from midway_hub.training.data.needs import Needs
from midway_hub.training.data.views.boxes import Box
from midway_hub.training.data.views.draw import ViewDraw

WHOLE = 0.999
"""Share of the known pixels around a place from which on its flow is known."""


@dataclass(frozen=True)
class FlowAsked:
    """Which flow goes into a batch, on which views, and from whom.

    Attributes:
        pairs: (frame, other frame).
        on: The group of views in whose pixels it is.
        size: Height and width of those views.
        teacher: Who knows it.
    """

    pairs: tuple[tuple[int, int], ...]
    on: str
    size: tuple[int, int]
    teacher: FlowTeacher

    @classmethod
    def by(cls, needs: Needs, teacher: FlowTeacher) -> FlowAsked | None:
        """Return what a method asks for, None where that is nothing."""
        return cls(needs.flow, needs.flow_on, needs.crops[needs.flow_on].size, teacher) if needs.flow_on else None

    def of_clip(self, clip: Clip, draw: ViewDraw) -> dict[str, Tensor]:
        """Return `flow/i/j` (2, h, w) and `valid/i/j` (h, w) of one clip.

        Raises:
            SampleError: Nobody knows the flow.
        """
        return {name: found[0] for name, found in self.of_known(self._known([clip]), [draw]).items()}

    def of_batch(self, frames: Tensor, draws: Sequence[ViewDraw], clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Return `flow/i/j` (B, 2, h, w) and `valid/i/j` (B, h, w) of frames (B, T, 3, H, W) on their device."""
        pictures = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
        whole = [replace(clip, pictures=tuple(mine)) for clip, mine in zip(clips, pictures, strict=True)]
        known = {pair: tuple(part.to(frames.device) for part in both) for pair, both in self._known(whole).items()}
        return self.of_known(known, draws)  # type: ignore[arg-type]

    def of_known(
        self, known: Mapping[tuple[int, int], tuple[Tensor, Tensor]], draws: Sequence[ViewDraw]
    ) -> dict[str, Tensor]:
        """Cut flow (B, 2, H, W) and validity (B, H, W) of whole frames to the views."""
        made: dict[str, Tensor] = {}
        for i, j in self.pairs:
            flow, valid = known[i, j]
            cut = [self._cut(flow[row], valid[row], draw) for row, draw in enumerate(draws)]
            made[f"flow/{i}/{j}"] = torch.stack([flow for flow, _ in cut])
            made[f"valid/{i}/{j}"] = torch.stack([valid for _, valid in cut])
        return made

    def _known(self, clips: Sequence[Clip]) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        return {pair: known_flow([self.teacher.flow(clip, *pair) for clip in clips]) for pair in self.pairs}

    def _cut(self, flow: Tensor, valid: Tensor, draw: ViewDraw) -> tuple[Tensor, Tensor]:
        box = draw.outer[self.on] if self.on in draw.outer else tuple(draw.groups[self.on].boxes[0].tolist())
        return crop_flow(flow, valid, box, self.size)


def known_flow(fields: Sequence[KnownFlow]) -> tuple[Tensor, Tensor]:
    """Join flow fields of frames of one size: (B, 2, H, W) float32 and (B, H, W) bool."""
    flow = torch.from_numpy(np.stack([field.flow for field in fields]).astype(np.float32, copy=False))
    return flow, torch.from_numpy(np.stack([field.valid for field in fields]))


def crop_flow(flow: Tensor, valid: Tensor, box: Box, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut flow to a box that both frames share, and resize it.

    Args:
        flow: (2, H, W) in pixels of the frame.
        valid: (H, W) bool.
        box: Top, left, height and width.
        size: Height and width of the view.

    Returns:
        (2, h, w) in pixels of the view, 0 where it is not known; and (h, w) bool, whether it is known and leads to a
        place within the view.
    """
    top, left, height, width = box
    known = valid[top : top + height, left : left + width]
    cut = torch.where(known, flow[:, top : top + height, left : left + width], 0.0).float()
    both = torch.cat([cut, known[None].float()])[None]
    resized = F.interpolate(both, size=size, mode="bilinear", align_corners=False)[0]
    scale = resized.new_tensor([size[1] / width, size[0] / height]).view(2, 1, 1)
    share = resized[2]
    moved = resized[:2] / share.clamp(min=1e-6) * scale
    x, y = (places(moved[None])[0] + moved).unbind(0)
    inside = (x >= -0.5) & (x <= size[1] - 0.5) & (y >= -0.5) & (y <= size[0] - 0.5)
    valid = (share >= WHOLE) & inside
    return torch.where(share >= WHOLE, moved, 0.0), valid
