"""PooDLe: dense features aligned by flow, and pooled features of sub-crops that flow pairs (Wang et al., ICLR 2025)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub.training.data.flow_provider.masks import ddflow_occluded
from midway_hub.training.data.needs import Positive, Share
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.methods.backbone import Backbone, BackboneMethod, make_backbone
from midway_hub.training.methods.base import Architecture
from midway_hub.training.methods.byol import ByolSettings, byol_distance, byol_head
from midway_hub.training.methods.flowe import FlowAlignedCompat, FlowAlignedNetwork, FlowAlignedViews, both_ways
from midway_hub.training.methods.optimisation import PlannedLonger, TeacherSettings
from midway_hub.training.methods.registry import register
from midway_hub.training.methods.subcrops import cut, plan_subcrops

LEVELS = 3
"""Maps that the spatial decoder reads: C3, C4 and C5 of a ResNet."""


class PoodleSettings(PlannedLonger, TeacherSettings):
    """Numbers of PooDLe. The defaults are the paper's: 100 epochs of a schedule of 300."""

    lr_rule: ClassVar = "absolute"

    name: str = "poodle"

    min_lr: float = Field(0.0, ge=0)
    """Learning rate where the cosine would end."""

    warmup_epochs: int | float = Field(2, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    planned: float = Field(3.0, ge=1)
    """Length that the cosine is planned for, in lengths of the run."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    eps: float = Field(1e-6, gt=0)
    """What AdamW adds to the root of the gradient's mean square."""

    dense_weight: float = Field(0.5, ge=0)
    """Weight of the dense loss."""

    pooled_weight: float = Field(0.5, ge=0)
    """Weight of the loss of sub-crops."""

    subcrops: int = Field(6, ge=1)
    """Pairs of sub-crops of every frame."""

    subcrop_size: int = Field(192, ge=16)
    """Side in pixels that sub-crops are resized to."""

    subcrop_area: tuple[Share, Share] = (0.05, 0.3)
    """Area of a sub-crop as a share of the crop."""

    subcrop_aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Width over height of a sub-crop."""

    subcrop_jitter: float = Field(0.1, ge=0, le=1)
    """How far beside flow a sub-crop of the other frame may be, as a share of height and width."""

    occlusion: tuple[float, float] = (0.1, 0.5)
    """DDFlow's numbers: what of the squared lengths, and how many squared pixels, flow there and back may miss by."""

    head: ByolSettings = ByolSettings()
    """Sizes of the dense projector and predictor and of the pooled ones."""


class SpatialDecoder(nn.Module):
    """Brings the coarsest map to the finer ones' size, from the top down (section 3.3).

    Args:
        dims: Channels of the maps, fine to coarse.
    """

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        width = dims[-1]
        self.blocks = nn.ModuleList([Bottleneck(width) for _ in dims[:-1]])
        self.laterals = nn.ModuleList([nn.Conv2d(dim, width, 1) for dim in reversed(dims[:-1])])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map maps (B, D_i, h_i, w_i), fine to coarse, to (B, D, h, w) of the finest one's size."""
        x = maps[-1]
        for block, lateral, finer in zip(self.blocks, self.laterals, reversed(maps[:-1]), strict=True):
            x = block(x)
            if x.shape[-2:] != finer.shape[-2:]:
                x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False)
            x = x + lateral(finer)
        return x


class Bottleneck(nn.Module):
    """A ResNet's residual block through an eighth of the channels, without stride.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 8)
        self.inner = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same."""
        return F.relu(x + self.inner(x))


class PoodleNetwork(FlowAlignedNetwork):
    """Encoder, spatial decoder and two pairs of heads; the teacher's encoder, decoder and projectors.

    Args:
        backbone: The encoder; its last three maps are read.
        settings: The method's numbers.
        compat: Oddities of the released code.
    """

    def __init__(self, backbone: Backbone, settings: PoodleSettings, compat: FlowAlignedCompat) -> None:
        width = backbone.dims[-1]
        super().__init__(backbone, width, settings.head, compat, first_bias=True)
        self.settings = settings
        self.decoder = SpatialDecoder(backbone.dims)
        self.pooled_projector = byol_head(width, settings.head, first_bias=True)
        self.pooled_predictor = byol_head(settings.head.out, settings.head, first_bias=True)
        self.teacher_decoder = copy.deepcopy(self.decoder).requires_grad_(False)
        self.teacher_pooled_projector = copy.deepcopy(self.pooled_projector).requires_grad_(False)

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {
            **super().follows(),
            self.teacher_decoder: self.decoder,
            self.teacher_pooled_projector: self.pooled_projector,
        }

    def dense(self, images: Tensor) -> Tensor:
        """The online projection of the decoded map of images (B, 3, H, W), before the predictor."""
        return self.projector(self.decoder(self.backbone.maps(images)))

    def dense_teacher(self, images: Tensor) -> Tensor:
        """The teacher's projection of the decoded map of images (B, 3, H, W)."""
        return self.teacher_projector(self.teacher_decoder(self.teacher_backbone.maps(images)))

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare two frames densely where they show the same, and by sub-crops.

        Args:
            batch: As for FlowE.

        Returns:
            The losses `dense` and `pooled`; as a diagnostic `aligned_pixels`, the share that counts.
        """
        settings, (slope, offset) = self.settings, self.settings.occlusion
        there, back = batch["flow/0/1"], batch["flow/1/0"]
        known = torch.cat([batch["valid/0/1"], batch["valid/1/0"]])
        hidden = torch.cat(
            [
                ddflow_occluded(there, back, slope=slope, offset=offset),
                ddflow_occluded(back, there, slope=slope, offset=offset),
            ]
        )
        dense, share = self.aligned(batch, hidden | ~known)
        losses = {
            "dense": settings.dense_weight * dense,
            "pooled": settings.pooled_weight * self._pooled(batch),
        }
        return StepOutput(losses, {"aligned_pixels": share})

    def _pooled(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The distance of sub-crops from their partners in the other frame, which the teacher sees."""
        settings, (frames, _, flow) = self.settings, both_ways(batch)
        plan = plan_subcrops(
            flow,
            count=settings.subcrops,
            area=settings.subcrop_area,
            aspect=settings.subcrop_aspect,
            jitter=settings.subcrop_jitter,
        )
        others = frames.roll(len(frames) // 2, dims=0)
        seen = cut(frames, plan.source, settings.subcrop_size)
        pooled = self.backbone.maps(seen)[-1].mean(dim=(2, 3), keepdim=True)
        predicted = self.pooled_predictor(self.pooled_projector(pooled))
        with torch.no_grad():
            here, there = (cut(images, plan.target, settings.subcrop_size) for images in (frames, others))
            partners = torch.where(plan.same_frame.flatten()[:, None, None, None], here, there)
            known = self.teacher_backbone.maps(partners)[-1].mean(dim=(2, 3), keepdim=True)
            target = self.teacher_pooled_projector(known)
        return byol_distance(predicted, target).mean()


@register
class Poodle(BackboneMethod):
    """Dense and pooled BYOL along optical flow."""

    name = "poodle"
    settings = PoodleSettings
    views = FlowAlignedViews
    oddities = FlowAlignedCompat
    formulas: ClassVar = {"dense": byol_distance, "pooled": byol_distance}
    numbers: PoodleSettings
    compat: FlowAlignedCompat

    def make_network(self, model: Architecture) -> PoodleNetwork:
        return PoodleNetwork(make_backbone(model, self.name, count=LEVELS), self.numbers, self.compat)
