"""Optical flow as a task.

A DPT head learns by the bounded Laplacian loss (paper App. B.4; CroCo v2), a correlation head by all its estimates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from midway_hub import MidwayNetwork
from midway_hub.heads import MOST_UPDATES, CorrelationHeadConfig, FlowHeadConfig
from midway_hub.models.correlation import FlowSequence
from midway_hub.models.correlation.head import STRIDE
from midway_hub.outputs import Motion
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.fields import KeywordsOf
from midway_hub.training.losses import prediction_loss
from midway_hub.training.settings import Settings
from midway_hub.training.tasks.base import Task, TaskNetwork
from midway_hub.training.tasks.flow_losses import bounded_laplacian, sequence_l1
from midway_hub.training.tasks.optimisation import OptimisationSettings
from midway_hub.training.timeline import Timeline


class FlowSettings(Settings):
    """Numbers of the task."""

    name: Literal["flow"] = "flow"

    head: Annotated[
        dict[str, Any],
        KeywordsOf(
            (FlowHeadConfig, CorrelationHeadConfig),
            "head",
            without={"tile": "it is the crop that training uses, data.crop"},
            check=lambda **keywords: FlowHeadConfig.of(keywords),
        ),
    ] = Field(default_factory=dict)
    """The head: keyword arguments of `FlowHeadConfig`, or of `CorrelationHeadConfig` with `kind: correlation`. Its tile
    is the training crop; what is not named here is that of the checkpoint's head, if it has one of the kind."""

    max_flow: float = Field(10_000.0, gt=0)
    """Pixels that move further, in pixels, do not count in the loss."""

    dynamics_weight: float = Field(0.0, ge=0)
    """Weight of pretraining's loss of the dense prediction, every level's, beside the flow's; the target's features are
    not trained by it. Without it (the paper's 0) the predictor serves flow alone, and soon carries no patches: peaks of
    a perturbation then stay where the patch was."""

    updates: int | None = Field(None, ge=1, le=MOST_UPDATES)
    """Updates of a correlation head in training; null: as its configuration says."""

    gamma: float = Field(0.8, gt=0, le=1)
    """Of a correlation head: how much less an estimate counts than the one that follows it (RAFT, equation 7)."""

    warm_start: float = Field(0.0, ge=0, le=1)
    """Of a correlation head: probability that a pair starts from flow that is right up to a factor between 0.5 and
    1.5 of the whole frame's, as in a video from the flow before."""

    occluded_weight: float = Field(1.0, ge=0)
    """Of a correlation head: how much pixels count that the target does not show, where the data says which."""

    scale_weight: float = Field(0.1, ge=0)
    """Of a correlation head: weight of the bounded Laplacian loss, which teaches it the scale alone."""

    optimisation: OptimisationSettings = OptimisationSettings()
    """Learning rate, schedule, decay."""


class FlowNetwork(TaskNetwork):
    """A network with a flow head, and its loss."""

    def __init__(self, model: MidwayNetwork, settings: FlowSettings, *, freeze: bool) -> None:
        super().__init__(model, "flow_head", freeze=freeze)
        self.settings = settings

    def small_batch(self) -> dict[str, Tensor]:
        """Return a pair of four patches, or of as many as a correlation head needs for four cells."""
        side, device = math.lcm(2 * self.model.config.patch_size, 2 * STRIDE), self.model.device
        frames = torch.zeros(1, 3, side, side, device=device)
        return {
            "source": frames,
            "target": frames,
            "flow": torch.ones(1, 2, side, side, device=device),
            "valid": torch.ones(1, side, side, dtype=torch.bool, device=device),
        }

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Estimate flow and compare it with the truth.

        Args:
            batch: `source` and `target` (B, 3, H, W) normalised, `flow` (B, 2, H, W) in pixels, `valid` (B, H, W) bool.

        Returns:
            The loss `flow` and, where it has a weight, `dynamics_<block>` of every level; as diagnostics `epe`, the
            mean end-point error in pixels, and `epe_of_zero`, that of saying that nothing moves.
        """
        if self.model.flow_head.config.kind == "correlation":
            return self._by_sequence(batch)
        flow, valid = batch["flow"], batch["valid"]
        estimate, motion, target = self.model.predict_flow_and_motion(batch["source"], batch["target"])
        least, largest = self.model.flow_head.config.scale_bounds
        loss = bounded_laplacian(estimate, flow, valid, bounds=(least, largest), max_flow=self.settings.max_flow)
        losses = {"flow": loss, **self._dynamics_losses(motion, target)}
        return StepOutput(losses, _diagnostics(estimate, flow, valid))

    def _by_sequence(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare every estimate of a correlation head with the truth."""
        settings, head = self.settings, self.model.flow_head.config
        flow, valid = batch["flow"], batch["valid"]
        initial = started(flow, settings.warm_start) if self.training and settings.warm_start else None
        sequence, motion, target = self.model.flow_sequence(
            batch["source"], batch["target"], updates=settings.updates, initial=initial
        )
        occluded = batch.get("occluded")
        weights = None if occluded is None else torch.where(occluded, settings.occluded_weight, 1.0)
        last = sequence.fine[-1]
        loss = sequence_l1(
            full_size(sequence), flow, valid, gamma=settings.gamma, max_flow=settings.max_flow, weights=weights
        )
        losses = {"flow": loss, **self._dynamics_losses(motion, target)}
        if settings.scale_weight:
            scaled = torch.cat([last[:, :2].detach(), last[:, 2:]], 1)
            least, largest = head.scale_bounds
            likelihood = bounded_laplacian(scaled, flow, valid, bounds=(least, largest), max_flow=settings.max_flow)
            losses["scale"] = settings.scale_weight * likelihood
        return StepOutput(losses, _diagnostics(last, flow, valid))

    def _dynamics_losses(self, motion: Motion | None, target: Mapping[int, Tensor]) -> dict[str, Tensor]:
        weight = self.settings.dynamics_weight
        if not weight or motion is None:
            return {}
        pairs = zip(motion.levels, motion.predicted, strict=True)
        return {
            f"dynamics_{level}": weight * prediction_loss(predicted, target[level].detach())
            for level, predicted in pairs
        }


class FlowTask(Task):
    """Training of a flow head, with or without what it stands on."""

    def __init__(
        self, model: MidwayNetwork, settings: FlowSettings, timeline: Timeline, *, freeze: bool = False
    ) -> None:
        super().__init__(FlowNetwork(model, settings, freeze=freeze), settings.optimisation, timeline)


def _mean_length(vectors: Tensor, valid: Tensor) -> Tensor:
    lengths = torch.hypot(vectors[:, 0], vectors[:, 1])  # a norm over the second axis takes a hundred times as long
    return torch.where(valid, lengths, 0).sum() / valid.sum().clamp(min=1)


def _diagnostics(estimate: Tensor, flow: Tensor, valid: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            "epe": _mean_length(estimate[:, :2].float() - flow, valid),
            "epe_of_zero": _mean_length(flow, valid),
        }


def full_size(sequence: FlowSequence) -> list[Tensor]:
    """Return all estimates (B, 2, H, W) in pixels, those at 1/8 brought to the frame's size bilinearly."""
    coarse = [
        functional.interpolate(STRIDE * flow, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        for flow in sequence.coarse
    ]
    return [*coarse, *(estimate[:, :2] for estimate in sequence.fine)]


def started(flow: Tensor, probability: float) -> Tensor:
    """Draw what updates start from, (B, 2, H, W): nothing, or with a probability true flow times a factor."""
    factor = torch.empty(len(flow), 1, 1, 1, device=flow.device).uniform_(0.5, 1.5)
    warm = torch.rand(len(flow), 1, 1, 1, device=flow.device) < probability
    return torch.where(flow.isfinite(), flow, 0.0) * factor * warm
