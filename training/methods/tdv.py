"""TDV: a frame's features and those of the motion to the next one add up (Daithankar et al. 2026)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.blocks import CrossBlock
from midway_hub.models.encoder import resize_position_embedding
from midway_hub.training.data.needs import Crops, Frames, Needs, Views, ViewSize
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import at_least_float32, cross_entropy, entropy, teacher_probabilities
from midway_hub.training.methods.base import Architecture, HubMethod, hub_network
from midway_hub.training.methods.centre import Centre
from midway_hub.training.methods.head import DinoHead, HeadSettings
from midway_hub.training.methods.optimisation import AdamWSettings, ConstantTeacherSettings
from midway_hub.training.methods.registry import register
from midway_hub.training.settings import Settings


class TdvViews(Views):
    """The largest centred square of two frames, as it is."""

    size: ViewSize = 224
    """Side in pixels of the view."""

    def needs(self) -> Needs:
        """Return the group `frames`: no crops, flips or colours."""
        square = Crops((self.size, self.size), area=(1.0, 1.0), aspect=(1.0, 1.0), same_box=True)
        return Needs(Frames("pair", 2), {"frames": square})


class MotionEncoderSettings(Settings):
    """Sizes of the motion encoder; its width is the encoder's."""

    depth: int = Field(12, ge=1)
    """Blocks."""

    heads: int = Field(6, ge=1)
    """Attention heads."""


class TdvSettings(AdamWSettings, ConstantTeacherSettings):
    """Numbers of TDV. The defaults are the paper's."""

    lr_rule: ClassVar = "absolute"

    name: str = "tdv"

    base_lr: float = Field(1e-4, gt=0)
    """Peak learning rate, whatever the batch."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate at the end of the run."""

    warmup_epochs: int | float = Field(0.5, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    feature_weight: float = Field(1.5, ge=0)
    """Weight of the squared error of features."""

    prototype_weight: float = Field(1.5, ge=0)
    """Weight of the cross-entropy over prototypes, of CLS and patch tokens alike."""

    temperature: float = Field(0.1, gt=0)
    """Temperature of the student's and the teacher's distributions."""

    centre_momentum: float = Field(0.9, ge=0, le=1)
    """Share of itself that the centre keeps in a step."""

    head: HeadSettings = HeadSettings(prototypes=32768)
    """Sizes of the head."""

    motion: MotionEncoderSettings = MotionEncoderSettings()
    """Sizes of the motion encoder."""


class MotionEncoder(nn.Module):
    """A ViT on the difference of two frames, whose patches attend to the earlier frame's features.

    Args:
        config: Architecture of the frame encoder: patches and width are its.
        settings: Depth and heads.
    """

    def __init__(self, config: MidwayConfig, settings: MotionEncoderSettings) -> None:
        super().__init__()
        dim, self.stored = config.embed_dim, config.grid_size
        self.patch_embed = PatchEmbed(None, config.patch_size, config.num_channels, dim, flatten=False)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + config.grid_size**2, dim))
        self.blocks = nn.ModuleList([CrossBlock(dim, settings.heads, config.mlp_ratio) for _ in range(settings.depth)])
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, difference: Tensor, seen: Tensor) -> Tensor:
        """Map a difference (B, 3, H, W) and features (B, 1+N, D), CLS first, to a change of these, (B, 1+N, D)."""
        patches = self.patch_embed(difference)
        grid = (patches.shape[2], patches.shape[3])
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).mT], dim=1)
        x = x + resize_position_embedding(self.pos_embed, self.stored, grid)
        for block in self.blocks:
            x = block(x, seen)
        return self.out(self.norm(x))


class TdvNetwork(nn.Module):
    """Frame encoder, its moving average, motion encoder and heads.

    Args:
        config: Architecture of the frame encoder.
        settings: The method's numbers.
    """

    def __init__(self, config: MidwayConfig, settings: TdvSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model = MidwayNetwork(config)
        self.motion = MotionEncoder(config, settings.motion)
        self.student_head = DinoHead(config.embed_dim, settings.head)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.centre = Centre(settings.head.prototypes, settings.centre_momentum)

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {**self.model.target_side(), self.teacher_head: self.student_head}

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Predict the later frame's features from the earlier one's and the difference of the frames.

        Args:
            batch: `frames` (B, 2, 3, H, W). Normalised.

        Returns:
            The losses `features` and `prototypes`; as diagnostics `copy_error`, the squared error of predicting no
            change, and the teacher's entropy.
        """
        (first, second), settings = batch["frames"].unbind(1), self.settings
        last = (self.model.config.depth - 1,)
        (seen,) = self.model.student.tokens(first, last)
        predicted = seen + self.motion(second - first, seen)
        with torch.no_grad():
            (target,), (before,) = (self.model.teacher.tokens(frame, last) for frame in (second, first))
            answers = at_least_float32(self.teacher_head(target))
            teacher = teacher_probabilities(answers, self.centre.value, temperature=settings.temperature)
            if self.training:
                self.centre.gather(answers)
            diagnostics = {"copy_error": feature_loss(before, target), "teacher_entropy": entropy(teacher)}
        student = self.student_head(predicted)
        losses = {
            "features": settings.feature_weight * feature_loss(predicted, target),
            "prototypes": settings.prototype_weight * prototype_loss(student, teacher, settings.temperature),
        }
        return StepOutput(losses, diagnostics)

    def after_update(self) -> None:
        """Move the centre."""
        self.centre.move()

    def after_rejection(self) -> None:
        """Forget the teacher's answers."""
        self.centre.forget()


def feature_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of features (..., D), in float32 or better."""
    return F.mse_loss(at_least_float32(predicted), at_least_float32(target))


def prototype_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of distributions over prototypes, token by token (Caron et al. 2021, equation 2).

    Args:
        student: (..., K) outputs of the head.
        teacher: (..., K) probabilities, without gradient.
        temperature: Student temperature.
    """
    return cross_entropy(student, teacher, temperature).mean()


@register
class Tdv(HubMethod):
    """Features of a frame plus features of a motion are features of the next frame."""

    name = "tdv"
    settings = TdvSettings
    views = TdvViews
    formulas: ClassVar = {"features": feature_loss, "prototypes": prototype_loss}
    numbers: TdvSettings
    network: TdvNetwork

    def make_network(self, model: Architecture) -> TdvNetwork:
        return TdvNetwork(hub_network(model, self.name, target_network="ema"), self.numbers)
