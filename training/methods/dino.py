"""Two-frame DINO: views of a pair of frames agree with each other (spec: joint-embedding loss)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.network import Network
from midway_hub.training.compat import Compat
from midway_hub.training.data.views.settings import DinoViews
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.initial import EncoderInitial, initialise_encoder
from midway_hub.training.losses import at_least_float32, dino_loss, entropy, teacher_probabilities
from midway_hub.training.methods.base import Architecture, HubMethod, hub_network
from midway_hub.training.methods.head import DinoHead, HeadSettings
from midway_hub.training.methods.optimisation import DecaySchedule, TeacherSettings
from midway_hub.training.methods.registry import register

ADAMW_WEIGHT_DECAY = 0.01

COLLAPSE_ADVICE = (
    "the teacher says the same of every view. Lower method.base_lr or lengthen method.warmup_epochs; with small "
    "batches raise method.teacher_momentum towards 1 or take fewer prototypes (method.head.prototypes)"
)


class LastLayerSettings(DecaySchedule, TeacherSettings):
    """Numbers of methods that compare a student with its moving average over prototypes (paper, Table 8)."""

    clip: float | None = Field(3.0, gt=0)
    """Largest norm of the gradient of one parameter tensor; null does not clip."""

    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the student's last block; it grows linearly from 0 at the first."""

    initial: EncoderInitial = EncoderInitial()
    """Where first weights differ from the paper's."""

    freeze_last_layer_epochs: int = Field(1, ge=0)
    """Epochs from the start in which the head's last layer does not move."""


class DinoSettings(LastLayerSettings):
    """Numbers of the joint-embedding loss. The defaults are the paper's."""

    name: str = "dino"

    dino_weight: float = Field(1.0, gt=0)
    """Weight of the joint-embedding loss."""

    student_temperature: float = Field(0.1, gt=0)
    """Temperature of the student's distributions over prototypes."""

    teacher_temperature: float = Field(0.04, gt=0)
    """Temperature of the teacher's distributions, constant over the run."""

    centre_momentum: float = Field(0.9, ge=0, le=1)
    """Share of itself that the centre keeps in a step."""

    head: HeadSettings = HeadSettings()
    """Sizes of the head."""


class DinoNetwork(nn.Module):
    """Student and teacher with their heads, and the centre of the teacher's outputs.

    Args:
        config: Architecture of the encoders.
        settings: Temperatures, weight and sizes of the head.
        frames: Frames that views are taken of.
    """

    centre: Tensor
    teacher_sum: Tensor
    teacher_count: Tensor

    def __init__(self, config: MidwayConfig, settings: DinoSettings, frames: int = 2) -> None:
        super().__init__()
        self.settings, self.frames = settings, frames
        self.model = MidwayNetwork(config)
        initialise_encoder(self.model, settings.initial)
        self.student_head = DinoHead(config.embed_dim, settings.head)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(settings.head.prototypes))
        # What the teacher said since the last step, over micro-batches: each process has its own, in no checkpoint.
        self.register_buffer("teacher_sum", torch.zeros(settings.head.prototypes), persistent=False)
        self.register_buffer("teacher_count", torch.zeros(()), persistent=False)
        # DDP would overwrite them with those of the first process.
        self._ddp_params_and_buffers_to_ignore = ["teacher_sum", "teacher_count"]

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {**self.model.target_side(), self.teacher_head: self.student_head}

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare the views of a micro-batch.

        Args:
            batch: `globals` (B, Q, 3, S, S), boxes of the first frame, then the same boxes of the second if there is
                one; `locals` (B, L, 3, s, s), any number of all frames. Normalised.

        Returns:
            The loss `dino`: ln(prototypes) where every view gets the same answer. As diagnostics the teacher's entropy
            and its divergence from the student (their sum is the loss), the length of the centre, and the spread of the
            teacher's features (1: all directions alike, 0: one for all).

        Raises:
            ValueError: A group of views is missing.
        """
        settings, views = self.settings, require_views(batch, "globals", "locals")
        with torch.no_grad():
            teacher_features = self._cls("teacher", views[0])  # (B, Q, D)
            teacher_outputs = at_least_float32(self.teacher_head(teacher_features))  # (B, Q, K)
            teacher = teacher_probabilities(teacher_outputs, self.centre, temperature=settings.teacher_temperature)
            if self.training:
                self.teacher_sum += teacher_outputs.sum(dim=(0, 1))
                self.teacher_count += teacher_outputs.shape[0] * teacher_outputs.shape[1]
        student_features = torch.cat([self._cls("student", images) for images in views if images.shape[1]], dim=1)
        loss = dino_loss(
            self.student_head(student_features), teacher, temperature=settings.student_temperature, frames=self.frames
        )
        with torch.no_grad():
            teacher_entropy = entropy(teacher)
            diagnostics = {
                "teacher_entropy": teacher_entropy,
                "teacher_student_kl": loss.detach() - teacher_entropy,
                "centre_length": self.centre.norm(),
                "feature_spread": _spread(teacher_features),
            }
        return StepOutput({"dino": settings.dino_weight * loss}, diagnostics)

    def _cls(self, network: Network, views: Tensor) -> Tensor:
        """CLS tokens (B, V, D) of views (B, V, 3, H, W), encoded together."""
        (tokens,) = self.model.encoder(network).tokens(views.flatten(0, 1), (self.model.config.depth - 1,))
        return tokens[:, 0].unflatten(0, views.shape[:2])

    @torch.no_grad()
    def move_centre(self) -> None:
        """Move the centre towards the mean of what the teacher said since the last step, in all processes."""
        gathered = torch.cat([self.teacher_sum, self.teacher_count[None]])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(gathered)
        self.centre.lerp_(gathered[:-1] / gathered[-1], 1 - self.settings.centre_momentum)
        self.forget_teacher_outputs()

    def after_update(self) -> None:
        """Follow a step that was taken."""
        self.move_centre()

    def after_rejection(self) -> None:
        """Forget a step that was not taken."""
        self.forget_teacher_outputs()

    def forget_teacher_outputs(self) -> None:
        """Drop what the teacher said since the last step."""
        self.teacher_sum.zero_()
        self.teacher_count.zero_()


class LastLayerMethod(HubMethod):
    """A method whose student head's last layer rests at first, as in DINO."""

    numbers: LastLayerSettings

    def before_update(self, step: int) -> dict[str, Tensor]:
        if self.timeline.epoch(step) < self.numbers.freeze_last_layer_epochs:
            for parameter in self.network.student_head.last_layer.parameters():
                parameter.grad = None  # a zero would still let weight decay move it
        return super().before_update(step)


@register
class Dino(LastLayerMethod):
    """Two-frame DINO: Midway without the dynamics. With `views.frames=1` it is DINO itself."""

    name = "dino"
    settings = DinoSettings
    views = DinoViews
    oddities = Compat
    formulas: ClassVar = {"dino": dino_loss}
    numbers: DinoSettings
    network: DinoNetwork
    chosen_views: DinoViews
    compat: Compat

    def make_network(self, model: Architecture) -> DinoNetwork:
        return DinoNetwork(self._config(model), self.numbers, self.chosen_views.frames)

    def collapse_values(self) -> dict[str, tuple[float, str]]:
        """The loss is ln(prototypes) when the teacher says the same of every view: nothing is learned any more."""
        return {"dino": (self.numbers.dino_weight * math.log(self.numbers.head.prototypes), COLLAPSE_ADVICE)}

    def values(self, step: int) -> dict[str, float]:
        numbers, timeline, compat = self.numbers, self.timeline, self.compat
        entry = 1 / timeline.epoch_stride  # the released schedules have `epoch_stride` entries for every step
        samples_per_step = timeline.batch_size / timeline.epoch_stride
        reached = self.warmup_steps - entry if compat.warmup_ends_at_peak else None
        steps = timeline.steps * samples_per_step if compat.teacher_momentum_over_samples else timeline.steps
        return {
            "learning_rate": numbers.learning_rate(step, timeline, peak=self.peak_learning_rate, reached=reached),
            "weight_decay": numbers.decay(step, timeline),
            "momentum": numbers.momentum_at(step, steps),
        }

    def group_decay(self, group: str, scheduled: float) -> float:
        constant = self.compat.weight_decay_first_group_only and group != "student_matrices"
        return ADAMW_WEIGHT_DECAY if constant else scheduled

    def is_clipped(self, owner: str) -> bool:
        return not (owner == "dynamics" and self.compat.clip_student_only)

    def _config(self, model: Architecture) -> MidwayConfig:
        drop_path = self.numbers.drop_path
        return hub_network(model, self.name, target_network="ema", dynamics=self.dynamics, drop_path=drop_path)


def require_views(batch: Mapping[str, Tensor], *names: str) -> list[Tensor]:
    """Return groups of views from a batch.

    Raises:
        ValueError: One is missing.
    """
    missing = [name for name in names if name not in batch]
    if missing:
        raise ValueError(f"the batch holds the views {sorted(batch)}, but this method also takes {missing}")
    return [batch[name] for name in names]


def _spread(features: Tensor) -> Tensor:
    """Standard deviation of unit vectors (B, V, D) over batch and views, times √D."""
    directions = F.normalize(at_least_float32(features).flatten(0, -2), dim=-1)
    return directions.std(dim=0, correction=0).mean() * directions.shape[-1] ** 0.5
