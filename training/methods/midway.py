"""Midway: two-frame DINO, and dynamics that predict one frame's features from the other's (spec: dynamics)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from midway_hub import MidwayConfig
from midway_hub.training.data.views.settings import ViewSettings
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.initial import InitialSettings, initialise_dynamics
from midway_hub.training.losses import dino_loss, prediction_loss
from midway_hub.training.methods.base import Architecture
from midway_hub.training.methods.dino import Dino, DinoNetwork, DinoSettings, require_views
from midway_hub.training.methods.registry import register


class MidwaySettings(DinoSettings):
    """Numbers of Midway. The defaults are the paper's, but for the motion tokens."""

    name: str = "midway"

    initial: InitialSettings = InitialSettings()
    """Where first weights differ from the paper's."""

    dynamics_weight: float = Field(1.0, gt=0)
    """Weight of the prediction loss of every level; the levels are summed."""

    motion_token_std: float = Field(0.02, ge=0)
    """Standard deviation of the normal that motion tokens start from. The paper's 0 makes them equal, and nothing in
    the network ever tells equal tokens apart: they act as one."""


class MidwayPretrainingNetwork(DinoNetwork):
    """What DINO trains, and the dynamics between the frames."""

    settings: MidwaySettings

    def __init__(self, config: MidwayConfig, settings: MidwaySettings) -> None:
        super().__init__(config, settings)
        nn.init.normal_(self.model.dynamics.motion_tokens, std=settings.motion_token_std)
        initialise_dynamics(self.model, settings.initial)

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare the views of a micro-batch, and predict either frame of its dense crops from the other.

        Args:
            batch: `globals` and `locals` as for DINO, and `dense` (B, 2, 3, H, W), the same crop of both frames.

        Returns:
            The losses `dino` and, for every level, `dynamics_<block>`. As diagnostics those of DINO and, for every
            level, `copy_error_<block>`: the loss of predicting that nothing moves (the teacher's source features).

        Raises:
            ValueError: A group of views is missing.
        """
        (dense,) = require_views(batch, "dense")
        output, config = super().forward(batch), self.model.config
        frames, blocks = dense.flatten(0, 1), (*config.levels, config.depth - 1)
        grid = (frames.shape[-2] // config.patch_size, frames.shape[-1] // config.patch_size)

        source = dict(zip(blocks, self.model.student.tokens(frames, blocks), strict=True))  # (2B, 1+N, D) each
        with torch.no_grad():
            seen = dict(zip(blocks, self.model.teacher.tokens(frames, blocks), strict=True))
            target = {block: _other_frame(tokens) for block, tokens in seen.items()}
        motion = self.model.dynamics(source, target, grid)

        for level, predicted in zip(motion.levels, motion.predicted, strict=True):
            loss = prediction_loss(predicted, target[level])
            output.losses[f"dynamics_{level}"] = self.settings.dynamics_weight * loss
            output.diagnostics[f"copy_error_{level}"] = prediction_loss(seen[level], target[level])
        return output


@register
class Midway(Dino):
    """Latent dynamics and DINO on frame pairs (Hoang & Ren, ICLR 2026)."""

    name = "midway"
    settings = MidwaySettings
    views = ViewSettings
    formulas: ClassVar = {"dino": dino_loss, "dynamics": prediction_loss}
    dynamics = True
    numbers: MidwaySettings

    def make_network(self, model: Architecture) -> MidwayPretrainingNetwork:
        return MidwayPretrainingNetwork(self._config(model), self.numbers)


def _other_frame(tokens: Tensor) -> Tensor:
    """Swap the two frames of every pair in tokens (2B, 1+N, D): x, y, x, y, ... becomes y, x, y, x, ..."""
    return tokens.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
