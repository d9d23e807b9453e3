"""Semantic segmentation as a task: a linear or UperNet head, cross-entropy (paper App. B.4; mmsegmentation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub import MidwayNetwork
from midway_hub.heads import IGNORE, SegmentationHeadConfig
from midway_hub.models.upernet import AuxiliaryHead
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.fields import KeywordsOf
from midway_hub.training.settings import Settings
from midway_hub.training.tasks.base import Task, TaskNetwork
from midway_hub.training.tasks.optimisation import OptimisationSettings
from midway_hub.training.timeline import Timeline

DATA_DECIDES = dict.fromkeys(("classes", "palette"), "the data set says what its classes are")


def _check_head(**keywords: Any) -> None:
    SegmentationHeadConfig(**keywords, classes=("a", "b"), palette=((0, 0, 0), (1, 1, 1)))


class AuxiliarySettings(Settings):
    """A second, smaller head that helps UperNet while it trains, and is not exported."""

    weight: float = Field(0.4, ge=0)
    """Weight of its loss; 0 leaves it out."""

    index: int = Field(2, ge=0, le=3)
    """Which of the four maps it reads, from the finest."""

    channels: int = Field(256, ge=1)
    """Its width."""


class SegmentationSettings(Settings):
    """Numbers of the task."""

    name: Literal["segmentation"] = "segmentation"

    head: Annotated[
        dict[str, Any], KeywordsOf(SegmentationHeadConfig, "head", without=DATA_DECIDES, check=_check_head)
    ] = Field(default_factory=dict)
    """The head: keyword arguments of `SegmentationHeadConfig`. Its classes and palette are the data's; if `slide` is
    not named, it is that of the checkpoint's head."""

    auxiliary: AuxiliarySettings = AuxiliarySettings()
    """The second head, for UperNet only."""

    mean_over: Literal["all", "valid"] = "all"
    """Pixels that the cross-entropy is averaged over: all of the batch, ignored ones too, as mmsegmentation does, or
    those with a label."""

    optimisation: OptimisationSettings = OptimisationSettings(
        lr=3e-5, schedule="poly", warmup_epochs=None, warmup_steps=1500, warmup_start=1e-6, betas=(0.9, 0.999)
    )
    """Learning rate, schedule, decay."""


class SegmentationNetwork(TaskNetwork):
    """A network with a segmentation head, its auxiliary head, and the loss."""

    def __init__(self, model: MidwayNetwork, settings: SegmentationSettings, *, freeze: bool) -> None:
        super().__init__(model, "segmentation_head", freeze=freeze)
        self.settings = settings
        config = model.segmentation_head.config
        wanted = config.name == "upernet" and settings.auxiliary.weight > 0
        self.auxiliary = (
            AuxiliaryHead(model.config.embed_dim, len(config.classes), settings.auxiliary.channels) if wanted else None
        )

    def small_batch(self) -> dict[str, Tensor]:
        """Return a picture of 16 patches."""
        side, device = 4 * self.model.config.patch_size, self.model.device
        labels = torch.zeros(1, side, side, dtype=torch.uint8, device=device)
        return {"image": torch.zeros(1, 3, side, side, device=device), "labels": labels}

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Classify every pixel and compare it with its label.

        Args:
            batch: `image` (B, 3, H, W) normalised, `labels` (B, H, W), 255 where no class counts.

        Returns:
            The loss `segmentation`, and `auxiliary` with UperNet; as a diagnostic the pixel `accuracy`.
        """
        labels, head = batch["labels"].long(), self.model.segmentation_head
        maps = head.pyramid(self.model.segmentation_features(batch["image"]))
        logits = _at_size(head.decode(maps), labels)
        losses = {"segmentation": self._cross_entropy(logits, labels)}
        if self.auxiliary is not None:
            extra = _at_size(self.auxiliary(maps[self.settings.auxiliary.index]), labels)
            losses["auxiliary"] = self.settings.auxiliary.weight * self._cross_entropy(extra, labels)
        with torch.no_grad():
            counted = labels != IGNORE
            right = ((logits.argmax(dim=1) == labels) & counted).sum()
        return StepOutput(losses, {"accuracy": right / counted.sum().clamp(min=1)})

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
        counted = labels.numel() if self.settings.mean_over == "all" else (labels != IGNORE).sum().clamp(min=1)
        return total / counted


class SegmentationTask(Task):
    """Training of a segmentation head, with or without what it stands on."""

    network: SegmentationNetwork

    def __init__(
        self, model: MidwayNetwork, settings: SegmentationSettings, timeline: Timeline, *, freeze: bool = False
    ) -> None:
        super().__init__(SegmentationNetwork(model, settings, freeze=freeze), settings.optimisation, timeline)

    def beside(self) -> nn.Module | None:
        return self.network.auxiliary


def head_config(
    settings: SegmentationSettings, classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> SegmentationHeadConfig:
    """Return the head for a data set's classes."""
    return SegmentationHeadConfig.of(
        {**settings.head, "classes": tuple(classes), "palette": tuple(map(tuple, palette))}
    )


def _at_size(logits: Tensor, labels: Tensor) -> Tensor:
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
