"""What all pretraining methods share: their numbers, optimizer, schedules, clipping, teacher and export."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.compat import Compat
from midway_hub.training.ema import MovingAverage
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.initial import InitialSettings
from midway_hub.training.methods.optimisation import OWNERS, clip_per_tensor, owned_parameters, parameter_groups
from midway_hub.training.schedules import cosine, warmup_cosine
from midway_hub.training.settings import Settings
from midway_hub.training.timeline import Timeline

REFERENCE_BATCH = 256
ADAMW_WEIGHT_DECAY = 0.01


class MethodSettings(Settings):
    """Numbers of the optimisation. The defaults are the paper's (Table 8)."""

    name: str
    """Name of the method."""

    base_lr: float = Field(5e-4, gt=0)
    """Peak learning rate for a batch of 256 frame pairs; it grows in proportion to the batch."""

    min_lr: float = Field(1e-6, ge=0)
    """Learning rate at the end of the run."""

    warmup_epochs: int = Field(10, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    weight_decay: float = Field(0.04, ge=0)
    """Weight decay at the start, on parameters of two or more dimensions."""

    weight_decay_end: float = Field(0.4, ge=0)
    """Weight decay at the end of the run; a cosine leads there."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's mean and square."""

    clip: float | None = Field(3.0, gt=0)
    """Largest norm of the gradient of one parameter tensor; null does not clip."""

    teacher_momentum: float = Field(0.996, ge=0, le=1)
    """Share of itself that the teacher keeps in a step, at the start; a cosine leads to 1 at the end of the run."""

    drop_path: float = Field(0.1, ge=0, lt=1)
    """Stochastic depth of the student's last block; it grows linearly from 0 at the first."""

    initial: InitialSettings = InitialSettings()
    """Where first weights differ from the paper's."""

    @model_validator(mode="after")
    def _betas_are_rates(self) -> MethodSettings:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}")
        return self

    def peak_learning_rate(self, batch_size: int) -> float:
        """Return the highest learning rate for a batch of so many frame pairs."""
        return self.base_lr * batch_size / REFERENCE_BATCH

    def warmup_steps(self, timeline: Timeline) -> int:
        """Return the optimizer steps in which the learning rate rises."""
        return min(self.warmup_epochs * timeline.steps_per_epoch, timeline.steps)


class Method(Trainable):
    """A pretraining method: it trains a `MidwayNetwork`, which `self.network` holds as `model`.

    A method is one file: its settings, its network (an `nn.Module` whose forward maps a batch of views to losses), and
    what follows a step. `midway_hub.training.methods.METHODS` lists it under its `name`.

    Args:
        settings: The method's numbers: an instance of the class attribute `settings`, or keywords for one.
        model: Architecture, or keywords for it. Its target network is a moving average, its drop path the method's.
        timeline: Length of the run.
        compat: Oddities of the released recipe that are wanted; default: none.
        lr_batch_size: Pairs per step that the learning rate is scaled by; default: the timeline's batch size.

    Attributes:
        settings: The class of its settings.
        numbers: Its settings, as they were chosen.
        views: The groups of views it takes from a batch, of "globals", "locals" and "dense".
        dynamics: Whether the network that it trains has dynamics.
        network: What is trained; it has `model` and `follows()`, the moving averages and what they follow.

    Raises:
        ValueError: Settings or architecture do not suit the method.
    """

    name: ClassVar[str]
    settings: ClassVar[type[MethodSettings]]
    views: ClassVar[tuple[str, ...]]
    dynamics: ClassVar[bool]
    numbers: MethodSettings

    def __init__(
        self,
        settings: MethodSettings | Mapping[str, Any] | None,
        model: MidwayConfig | Mapping[str, Any],
        timeline: Timeline,
        compat: Compat | None = None,
        *,
        lr_batch_size: int | None = None,
    ) -> None:
        self.numbers = self.settings.model_validate({} if settings is None else settings)
        if self.numbers.name != self.name:
            raise ValueError(f"method {self.name} got the settings of method {self.numbers.name!r}")
        self.timeline, self.compat = timeline, compat or Compat()
        self.peak_learning_rate = self.numbers.peak_learning_rate(lr_batch_size or timeline.batch_size)
        self.warmup_steps = self.numbers.warmup_steps(timeline)
        self.network = self.make_network(self._configure(model))
        self.teacher = MovingAverage(self.network.follows())

    @abstractmethod
    def make_network(self, config: MidwayConfig) -> nn.Module:
        """Return the network that is trained: `network(batch)` is a `StepOutput`."""

    # -- the step, as the engine calls it --------------------------------------------------------------------------

    def make_optimizer(self) -> Optimizer:
        return AdamW(parameter_groups(self.network), lr=self.peak_learning_rate, betas=self.numbers.betas)

    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        values = self.values(step)
        for group in optimizer.param_groups:
            group["lr"] = values["learning_rate"]
            if group["name"].endswith("_matrices"):
                constant = self.compat.weight_decay_first_group_only and group["name"] != "student_matrices"
                group["weight_decay"] = ADAMW_WEIGHT_DECAY if constant else values["weight_decay"]
        return values

    def before_update(self, step: int) -> dict[str, Tensor]:
        gradients: dict[str, list[Tensor]] = {owner: [] for owner in OWNERS}
        for owner, parameter in owned_parameters(self.network):
            if parameter.grad is not None:
                gradients[owner].append(parameter.grad)
        measured = {}
        for owner, tensors in gradients.items():
            unclipped = owner == "dynamics" and self.compat.clip_student_only
            if tensors:
                found = clip_per_tensor(tensors, None if unclipped else self.numbers.clip)
                measured.update({f"gradient_{what}_{owner}": value for what, value in found.items()})
        return measured

    def after_update(self, step: int) -> None:
        self.teacher.update(self.values(step)["momentum"])

    def export(self) -> MidwayNetwork:
        """Return what was trained, in eval mode, on the CPU in fp32, without the method's heads and drop path."""
        config = copy.deepcopy(self.network.model.config)
        config.drop_path_rate = 0.0
        exported = MidwayNetwork(config)
        exported.load_state_dict(self.network.model.state_dict())
        return exported.eval()

    # -- numbers of a step -----------------------------------------------------------------------------------------

    def values(self, step: int) -> dict[str, float]:
        """Return `learning_rate`, `weight_decay` and the teacher's `momentum` at an optimizer step."""
        numbers, timeline, steps, compat = self.numbers, self.timeline, self.timeline.steps, self.compat
        entry = 1 / timeline.epoch_stride  # the released schedules have `epoch_stride` entries for every step
        samples_per_step = timeline.batch_size / timeline.epoch_stride
        return {
            "learning_rate": warmup_cosine(
                step,
                peak=self.peak_learning_rate,
                end=numbers.min_lr,
                warmup=self.warmup_steps,
                steps=steps,
                reached=self.warmup_steps - entry if compat.warmup_ends_at_peak else None,
            ),
            "weight_decay": cosine(step, start=numbers.weight_decay, end=numbers.weight_decay_end, steps=steps),
            "momentum": cosine(
                step,
                start=numbers.teacher_momentum,
                end=1.0,
                steps=steps * samples_per_step if compat.teacher_momentum_over_samples else steps,
            ),
        }

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _configure(self, model: MidwayConfig | Mapping[str, Any]) -> MidwayConfig:
        keywords = model.to_dict() if isinstance(model, MidwayConfig) else dict(model)
        if keywords.get("target_network", "ema") != "ema":
            raise ValueError(
                f"method {self.name} needs target_network 'ema', got {keywords['target_network']!r}: "
                "the target is encoded by a moving average"
            )
        if not isinstance(model, MidwayConfig) and "drop_path_rate" in keywords:
            raise ValueError("model.drop_path_rate is set by the method: use method.drop_path instead")
        if self.dynamics and not keywords.get("dynamics", True):
            raise ValueError(f"method {self.name} trains dynamics, but model.dynamics is false; method dino has none")
        return MidwayConfig(**{**keywords, "dynamics": self.dynamics, "drop_path_rate": self.numbers.drop_path})
