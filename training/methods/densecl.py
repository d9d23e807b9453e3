"""DenseCL: two views of a picture contrasted as a whole and place by place (Wang et al., CVPR 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub.training.data.needs import (
    ColourRecipe,
    Crops,
    Frames,
    Needs,
    Palette,
    Probability,
    ShareRange,
    Views,
    ViewSize,
)
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import at_least_float32, exactly
from midway_hub.training.methods.backbone import Backbone, BackboneMethod, make_backbone
from midway_hub.training.methods.base import Architecture
from midway_hub.training.methods.optimisation import ConstantTeacherSettings, SgdSettings
from midway_hub.training.methods.queue import FeatureQueue
from midway_hub.training.methods.registry import register
from midway_hub.training.settings import Settings


class DenseclViews(Views):
    """Two views of one frame."""

    size: ViewSize = 224
    """Side of a view in pixels."""

    area: ShareRange = (0.2, 1.0)
    """Area of a view as a share of the frame."""

    flip_probability: Probability = 0.5
    """Share of the views that are mirrored."""

    blur_probability: Probability = 0.5
    """Share of the views that are blurred."""

    def needs(self) -> Needs:
        """Return the group `views`."""
        palette = Palette((0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
        recipe = ColourRecipe(blur=self.blur_probability, solarise=0.0)
        size = (self.size, self.size)
        views = Crops(size, 2, area=self.area, flip=self.flip_probability, colour=(recipe,), palette=palette)
        return Needs(Frames("single", 1), {"views": views})


class NeckSettings(Settings):
    """Sizes of the two branches of the neck."""

    hidden: int = Field(2048, ge=1)
    """Width of the hidden layer."""

    out: int = Field(128, ge=1)
    """Width of what is contrasted."""


class DenseclSettings(SgdSettings, ConstantTeacherSettings):
    """Numbers of DenseCL. The defaults are those of 800 epochs on COCO."""

    lr_rule: ClassVar = "absolute"

    name: str = "densecl"

    base_lr: float = Field(0.3, gt=0)
    """Peak learning rate for the paper's batch of 256; 0.03 on ImageNet."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate at the end of the run."""

    warmup_epochs: int | float = Field(0, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    teacher_momentum: float = Field(0.999, ge=0, le=1)
    """Share of itself that the key encoder keeps in a step."""

    temperature: float = Field(0.2, gt=0)
    """Temperature of both contrasts."""

    queue: int = Field(65536, ge=1)
    """Keys in each of the two queues, a multiple of the pictures of a step."""

    dense_weight: float = Field(0.5, ge=0, le=1)
    """Share of the dense loss; the rest is the global one's."""

    dense_warmup_steps: int = Field(0, ge=0)
    """Steps before which the dense loss does not count."""

    neck: NeckSettings = NeckSettings()
    """Sizes of the neck."""


class DenseclNeck(nn.Module):
    """A branch for the pooled map and one for its cells, each without BatchNorm.

    Args:
        width: Channels of the map.
        settings: Sizes.
    """

    def __init__(self, width: int, settings: NeckSettings) -> None:
        super().__init__()
        self.whole = nn.Sequential(
            nn.Linear(width, settings.hidden), nn.ReLU(inplace=True), nn.Linear(settings.hidden, settings.out)
        )
        self.cells = nn.Sequential(
            nn.Conv2d(width, settings.hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(settings.hidden, settings.out, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, D, h, w) to unit vectors of the whole (B, C) and of its cells (B, C, h·w)."""
        whole = F.normalize(at_least_float32(self.whole(features.mean(dim=(2, 3)))), dim=1)
        return whole, F.normalize(at_least_float32(self.cells(features)).flatten(2), dim=1)


class DenseclNetwork(nn.Module):
    """Query and key encoder with their necks, and a queue for each contrast.

    The paper moves the key encoder before keys are made. Here it moves behind every step, so that the two differ in the
    first step alone. Shuffling BatchNorm between processes is left out: it keeps statistics from telling keys, which
    matters for a convolutional encoder on several devices.

    Args:
        backbone: The encoder; its last map is read.
        settings: The method's numbers.
    """

    averages_buffers = False
    steps: Tensor

    def __init__(self, backbone: Backbone, settings: DenseclSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone, self.neck = backbone, DenseclNeck(backbone.dims[-1], settings.neck)
        self.teacher_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.teacher_neck = copy.deepcopy(self.neck).requires_grad_(False)
        self.whole_queue = FeatureQueue(settings.queue, settings.neck.out)
        self.cells_queue = FeatureQueue(settings.queue, settings.neck.out)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {self.teacher_backbone: self.backbone, self.teacher_neck: self.neck}

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Contrast two views of every picture.

        Args:
            batch: `views` (B, 2, 3, H, W). Normalised.

        Returns:
            The losses `whole` and `cells`; as a diagnostic the mean similarity of matched cells.
        """
        (one, two), settings = batch["views"].unbind(1), self.settings
        features = self.backbone.maps(one)[-1]
        whole, cells = self.neck(features)
        with torch.no_grad():
            key_features = self.teacher_backbone.maps(two)[-1]
            key_whole, key_cells = self.teacher_neck(key_features)
            match = matched_cells(features, key_features)  # (B, h·w)
            positives = key_cells.gather(2, match[:, None].expand(-1, key_cells.shape[1], -1))
            negatives = self.whole_queue.keys.clone(), self.cells_queue.keys.clone()
            if self.training:
                self.whole_queue.gather(key_whole)
                self.cells_queue.gather(F.normalize(key_cells.mean(dim=2), dim=1))
        share = settings.dense_weight * (self.steps >= settings.dense_warmup_steps)
        of_whole = contrast_loss(whole, key_whole, negatives[0], settings.temperature)
        of_cells = contrast_loss(cells.mT.flatten(0, 1), positives.mT.flatten(0, 1), negatives[1], settings.temperature)
        similar = (cells * positives).sum(dim=1).mean()
        losses = {"whole": (1 - share) * of_whole, "cells": share * of_cells}
        return StepOutput(losses, {"cell_similarity": similar.detach()})

    def after_update(self) -> None:
        """Put this step's keys into the queues."""
        self.whole_queue.push()
        self.cells_queue.push()
        self.steps += 1

    def after_rejection(self) -> None:
        """Forget this step's keys."""
        self.whole_queue.forget()
        self.cells_queue.forget()


@torch.no_grad()
def matched_cells(features: Tensor, key_features: Tensor) -> Tensor:
    """Return, for every cell of a map (B, D, h, w), the most similar one of another, (B, h·w) (section 3.3)."""
    ours, theirs = (F.normalize(at_least_float32(maps).flatten(2), dim=1) for maps in (features, key_features))
    with exactly(ours):
        return (ours.mT @ theirs).argmax(dim=2)


def contrast_loss(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of telling the positive key from negatives (van den Oord et al. 2018; He et al. 2020).

    Args:
        query: (n, C) unit vectors.
        positive: (n, C).
        negatives: (Q, C).
        temperature: What similarities are divided by.
    """
    with exactly(query):
        first = (query * positive).sum(dim=1, keepdim=True)
        logits = torch.cat([first, query @ negatives.to(query.dtype).mT], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


@register
class Densecl(BackboneMethod):
    """MoCo with a contrast of cells, which features match."""

    name = "densecl"
    settings = DenseclSettings
    views = DenseclViews
    unit = "images"
    formulas: ClassVar = {"whole": contrast_loss, "cells": contrast_loss}
    numbers: DenseclSettings

    def make_network(self, model: Architecture) -> DenseclNetwork:
        if self.numbers.queue % self.timeline.batch_size:
            raise ValueError(
                f"method.queue {self.numbers.queue} is not a multiple of the {self.timeline.batch_size} pictures of a "
                "step, so that keys of one step would not leave together; change it, or the batch"
            )
        return DenseclNetwork(make_backbone(model, self.name), self.numbers)
