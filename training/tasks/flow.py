"""Optical flow as a task: a DPT head on the dynamics, the bounded Laplacian loss (paper App. B.4; CroCo v2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.fields import KeywordsOf
from midway_hub.training.losses import prediction_loss
from midway_hub.training.settings import Settings
from midway_hub.training.tasks.base import Task, TaskNetwork
from midway_hub.training.tasks.flow_losses import bounded_laplacian
from midway_hub.training.tasks.optimisation import OptimisationSettings
from midway_hub.training.timeline import Timeline
from pydantic import Field
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.heads import FlowHeadConfig


class FlowSettings(Settings):
    """Numbers of the task."""

    name: Literal["flow"] = "flow"

    head: Annotated[
        dict[str, Any],
        KeywordsOf(FlowHeadConfig, "head", without={"tile": "it is the crop that training uses, data.crop"}),
    ] = Field(default_factory=dict)
    """The head: keyword arguments of `FlowHeadConfig`. Its tile is the training crop; what is not named here is that of
    the checkpoint's head, if it has one."""

    max_flow: float = Field(10_000.0, gt=0)
    """Pixels that move further, in pixels, do not count in the loss."""

    dynamics_weight: float = Field(0.0, ge=0)
    """Weight of pretraining's loss of the dense prediction, every level's, beside the flow's; the target's features are
    not trained by it. Without it (the paper's 0) the predictor serves flow alone, and soon carries no patches: peaks of
    a perturbation then stay where the patch was."""

    optimisation: OptimisationSettings = OptimisationSettings()
    """Learning rate, schedule, decay."""


class FlowNetwork(TaskNetwork):
    """A network with a flow head, and its loss."""

    def __init__(self, model: MidwayNetwork, settings: FlowSettings, *, freeze: bool) -> None:
        super().__init__(model, "flow_head", freeze=freeze)
        self.settings = settings

    def small_batch(self) -> dict[str, Tensor]:
        """Return a pair of four patches."""
        side, device = 2 * self.model.config.patch_size, self.model.device
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
        flow, valid = batch["flow"], batch["valid"]
        estimate, motion, target = self.model.predict_flow_and_motion(batch["source"], batch["target"])
        least, largest = self.model.flow_head.config.scale_bounds
        loss = bounded_laplacian(estimate, flow, valid, bounds=(least, largest), max_flow=self.settings.max_flow)
        losses = {"flow": loss}
        if weight := self.settings.dynamics_weight:
            for level, predicted in zip(motion.levels, motion.predicted, strict=True):
                losses[f"dynamics_{level}"] = weight * prediction_loss(predicted, target[level].detach())
        with torch.no_grad():
            diagnostics = {
                "epe": _mean_length(estimate[:, :2].float() - flow, valid),
                "epe_of_zero": _mean_length(flow, valid),
            }
        return StepOutput(losses, diagnostics)


class FlowTask(Task):
    """Training of a flow head, with or without what it stands on."""

    def __init__(
        self, model: MidwayNetwork, settings: FlowSettings, timeline: Timeline, *, freeze: bool = False
    ) -> None:
        super().__init__(FlowNetwork(model, settings, freeze=freeze), settings.optimisation, timeline)


def _mean_length(vectors: Tensor, valid: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    return torch.where(valid, lengths, 0).sum() / valid.sum().clamp(min=1)
