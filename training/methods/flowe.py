"""FlowE: features of two frames are alike where flow says that they show the same (Xiong et al., ICCV 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub.models.correlation.sampling import places, warp
from midway_hub.training.compat import Oddities
from midway_hub.training.data.flow_provider.masks import forward_backward_error
from midway_hub.training.data.needs import (
    ColourRecipe,
    Crops,
    Frames,
    Needs,
    Palette,
    Positive,
    Probability,
    RadiusRange,
    ShareRange,
    Views,
    ViewSize,
)
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.methods.affine import inverse, survives, transformed, undone
from midway_hub.training.methods.backbone import Backbone, BackboneMethod, make_backbone
from midway_hub.training.methods.base import Architecture
from midway_hub.training.methods.byol import ByolSettings, byol_distance, byol_head, masked_mean
from midway_hub.training.methods.optimisation import PlannedLonger, TeacherSettings
from midway_hub.training.methods.registry import register


class FlowAlignedCompat(Oddities):
    """What the released code of PooDLe, and of FlowE within it, does otherwise."""

    warps_before_undoing: bool = False
    """The teacher's map is warped by flow first and its affine undone after that: the two commute only without one."""

    grid_ends_at_centres: bool = False
    """Warping counts places from the first pixel's middle to the last's, and samples as if from edge to edge: shifts
    are off by up to half a pixel."""


class FlowAlignedViews(Views):
    """One crop that both frames share, each frame with colours and an affine of its own."""

    size: tuple[ViewSize, ViewSize] = (512, 1024)
    """Height and width of the crop in pixels."""

    area: ShareRange = (0.16, 0.45)
    """Area of the crop as a share of the frame: the 512x1024 of frames of 810 to 1350 rows that the code cuts."""

    rotate: float = Field(10.0, ge=0, le=180)
    """Degrees that affines turn by, both ways (FlowE's paper: 30)."""

    scale: tuple[Positive, Positive] = (0.9, 1.1)
    """Factors that affines enlarge by (FlowE's paper: 0.5 to 2)."""

    flip_probability: Probability = 0.5
    """Share of the affines that mirror."""

    blur_probability: Probability = 0.5
    """Share of the views that are blurred."""

    blur_radius: RadiusRange = (0.1, 2.0)
    """Standard deviation of the Gaussian blur in pixels."""

    def needs(self) -> Needs:
        """Return the group `crops` with its affines, and flow both ways."""
        height, width = self.size
        crops = Crops(
            self.size,
            area=self.area,
            aspect=(width / height, width / height),
            same_box=True,
            rotate=self.rotate,
            scale=self.scale,
            affine_flip=self.flip_probability,
            colour=(ColourRecipe(blur=self.blur_probability, solarise=0.0),),
            palette=Palette((0.8, 0.8, 0.8, 0.2), 0.8, 0.2, self.blur_radius),
        )
        return Needs(Frames("pair", 2), {"crops": crops}, flow=((0, 1), (1, 0)), flow_on="crops")


class FloweSettings(PlannedLonger, TeacherSettings):
    """Numbers of FlowE. The defaults are those of the port that PooDLe compares with."""

    lr_rule: ClassVar = "absolute"

    name: str = "flowe"

    min_lr: float = Field(1e-4, ge=0)
    """Learning rate where the cosine ends."""

    warmup_epochs: int | float = Field(2, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    planned: float = Field(3.0, ge=1)
    """Length that the cosine is planned for, in lengths of the run: 300 epochs, of which 100 are run."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    largest_error: float = Field(3.54, gt=0)
    """Pixels that flow there and back may lead away, at most, where it counts."""

    head: ByolSettings = ByolSettings()
    """Sizes of projector and predictor."""


class FlowAlignedNetwork(nn.Module):
    """Encoder, projector and predictor; the teacher's encoder and projector, whose BatchNorm keeps its own statistics.

    Args:
        backbone: The encoder.
        width: Channels of what the projector reads.
        head: Sizes of projector and predictor.
        compat: Oddities of the released code.
        first_bias: Whether the heads' first convolution has a bias.
    """

    averages_buffers = False

    def __init__(
        self, backbone: Backbone, width: int, head: ByolSettings, compat: FlowAlignedCompat, *, first_bias: bool
    ) -> None:
        super().__init__()
        self.compat = compat
        self.backbone = backbone
        self.projector = byol_head(width, head, first_bias=first_bias)
        self.predictor = byol_head(head.out, head, first_bias=first_bias)
        self.teacher_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {self.teacher_backbone: self.backbone, self.teacher_projector: self.projector}

    def dense(self, images: Tensor) -> Tensor:
        """The online projection of images (B, 3, H, W), before the predictor."""
        return self.projector(self.backbone.maps(images)[-1])

    def dense_teacher(self, images: Tensor) -> Tensor:
        """The teacher's projection of images (B, 3, H, W)."""
        return self.teacher_projector(self.teacher_backbone.maps(images)[-1])

    def aligned(self, batch: Mapping[str, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compare both frames of every pair with each other along flow.

        Args:
            batch: As for `forward`.
            hidden: (2B, H, W) bool, pixels of the first frames, then of the second ones, that do not count.

        Returns:
            The distance, mean over the pixels that count; and the share of these.
        """
        frames, affine, flow = both_ways(batch)
        size = (frames.shape[-2], frames.shape[-1])
        other = affine.roll(len(affine) // 2, dims=0)
        seen = transformed(frames, affine)
        predicted = undone(self.predictor(self.dense(seen)), affine, size)
        with torch.no_grad():
            known = self.dense_teacher(seen).roll(len(affine) // 2, dims=0)  # of the other frame
            target = self._on_this_frame(known, other, flow, size)
            back = fetched(survives(other, size)[:, None].float(), flow, self.compat.grid_ends_at_centres)[:, 0] > 0.999
            counts = ~hidden & survives(affine, size) & back & in_view(flow)
        return masked_mean(byol_distance(predicted, target), counts), counts.float().mean()

    def _on_this_frame(self, known: Tensor, affine: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.compat.warps_before_undoing:
            return fetched(undone(known, affine, size), flow, self.compat.grid_ends_at_centres)
        resized = F.interpolate(known, size=size, mode="bilinear", align_corners=False)
        return transformed(fetched(resized, flow, self.compat.grid_ends_at_centres), inverse(affine))


class FloweNetwork(FlowAlignedNetwork):
    """FlowE's network.

    Args:
        backbone: The encoder; its last map is read.
        settings: The method's numbers.
        compat: Oddities of the released code.
    """

    def __init__(self, backbone: Backbone, settings: FloweSettings, compat: FlowAlignedCompat) -> None:
        super().__init__(backbone, backbone.dims[-1], settings.head, compat, first_bias=False)
        self.settings = settings

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare two frames where flow there and back agrees.

        Args:
            batch: `crops` (B, 2, 3, H, W) and `crops/affine` (B, 2, 2, 3); `flow/0/1`, `flow/1/0` (B, 2, H, W) and
                `valid/0/1`, `valid/1/0` (B, H, W).

        Returns:
            The loss `alignment`; as a diagnostic `aligned_pixels`, the share that counts.
        """
        there, back = batch["flow/0/1"], batch["flow/1/0"]
        known = torch.cat([batch["valid/0/1"], batch["valid/1/0"]])
        error = torch.cat([forward_backward_error(there, back), forward_backward_error(back, there)])
        loss, share = self.aligned(batch, ~known | ~(error < self.settings.largest_error))
        return StepOutput({"alignment": loss}, {"aligned_pixels": share})


def both_ways(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (2B, 3, H, W), first ones, then second ones, their affines (2B, 2, 3) and flow (2B, 2, H, W)."""
    frames = batch["crops"].transpose(0, 1).flatten(0, 1)
    affine = batch["crops/affine"].transpose(0, 1).flatten(0, 1)
    return frames, affine, torch.cat([batch["flow/0/1"], batch["flow/1/0"]])


def fetched(maps: Tensor, flow: Tensor, ends_at_centres: bool = False) -> Tensor:
    """Fetch what flow (B, 2, H, W) points at in maps (B, C, H, W) of the other frame; see `grid_ends_at_centres`."""
    if not ends_at_centres:
        return warp(maps, flow)
    height, width = maps.shape[-2:]
    x, y = (places(maps) + flow).unbind(1)
    where = torch.stack([2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1], -1)
    return F.grid_sample(maps.float(), where, align_corners=False)


def in_view(flow: Tensor) -> Tensor:
    """Tell which pixels' targets lie between the first and the last pixel's middle, (B, H, W) bool."""
    height, width = flow.shape[-2:]
    x, y = (places(flow) + flow).unbind(1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


@register
class Flowe(BackboneMethod):
    """Dense BYOL along optical flow."""

    name = "flowe"
    settings = FloweSettings
    views = FlowAlignedViews
    oddities = FlowAlignedCompat
    formulas: ClassVar = {"alignment": byol_distance}
    numbers: FloweSettings
    compat: FlowAlignedCompat

    def make_network(self, model: Architecture) -> FloweNetwork:
        return FloweNetwork(make_backbone(model, self.name), self.numbers, self.compat)
