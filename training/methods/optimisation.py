"""How methods are optimised: AdamW or SGD, schedules, decay on matrices, clipping; numbers beside what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from midway_hub.training.schedules import cosine, warmup_cosine
from midway_hub.training.settings import Settings
from midway_hub.training.timeline import Timeline

MATRICES, VECTORS = "matrices", "vectors"


class MethodSettings(Settings):
    """Numbers of a method: what every one has."""

    lr_rule: ClassVar[Literal["linear", "sqrt", "absolute"]] = "linear"
    """How the learning rate grows with the batch."""

    reference_batch: ClassVar[int] = 256
    """Batch that `base_lr` is for."""

    clips: ClassVar[Literal["tensor", "owner", "all"]] = "tensor"
    """What `clip` bounds the norm of: a gradient tensor, those of an owner (encoder, dynamics, ...), or all."""

    name: str
    """Name of the method."""

    base_lr: float = Field(5e-4, gt=0)
    """Peak learning rate for a batch of the reference size (256 unless the method's paper has another rule)."""

    min_lr: float = Field(1e-6, ge=0)
    """Learning rate at the end of the run."""

    warmup_epochs: int | float = Field(10, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    weight_decay: float = Field(0.04, ge=0)
    """Weight decay at the start, on parameters of two or more dimensions."""

    clip: float | None = Field(None, gt=0)
    """Largest norm of a gradient: of what, is the method's to say; null does not clip."""

    def peak_learning_rate(self, batch_size: int) -> float:
        """Return the highest learning rate for a batch of so many samples."""
        share = batch_size / self.reference_batch
        return self.base_lr * {"linear": share, "sqrt": share**0.5, "absolute": 1.0}[self.lr_rule]

    def explained_learning_rate(self, batch_size: int) -> str:
        """Return how the highest learning rate comes about."""
        share = f"{batch_size}/{self.reference_batch}"
        factor = {"linear": f" x {share}", "sqrt": f" x sqrt({share})", "absolute": ", whatever the batch"}
        return f"method.base_lr {self.base_lr:g}{factor[self.lr_rule]}"

    def warmup_steps(self, timeline: Timeline) -> int:
        """Return the optimizer steps in which the learning rate rises."""
        return min(round(self.warmup_epochs * timeline.steps_per_epoch), timeline.steps)

    def learning_rate(self, step: float, timeline: Timeline, *, peak: float, reached: float | None = None) -> float:
        """Return the learning rate at a step; `reached` is the step of the warm-up's line that is at the peak."""
        warmup = self.warmup_steps(timeline)
        return warmup_cosine(step, peak=peak, end=self.min_lr, warmup=warmup, steps=timeline.steps, reached=reached)

    def decay(self, step: float, timeline: Timeline) -> float:
        """Return the weight decay at a step."""
        return self.weight_decay

    def make_optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        """Return an optimizer over parameter groups."""
        raise NotImplementedError


class AdamWSettings(MethodSettings):
    """Numbers of AdamW with a warm-up and a cosine."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's mean and square."""

    eps: float = Field(1e-8, gt=0)
    """What AdamW adds to the root of the gradient's mean square."""

    @field_validator("betas")
    @classmethod
    def _betas_are_rates(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {betas}")
        return betas

    def make_optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        return AdamW(groups, lr=lr, betas=self.betas, eps=self.eps)


class DecaySchedule(AdamWSettings):
    """AdamW whose weight decay grows along a cosine, as in DINO."""

    weight_decay_end: float = Field(0.4, ge=0)
    """Weight decay at the end of the run; a cosine leads there."""

    def decay(self, step: float, timeline: Timeline) -> float:
        return cosine(step, start=self.weight_decay, end=self.weight_decay_end, steps=timeline.steps)


class PlannedLonger(AdamWSettings):
    """AdamW whose cosine was planned for a longer run and is cut off."""

    planned: float = Field(1.0, ge=1)
    """Length that the cosine is planned for, in lengths of the run."""

    def learning_rate(self, step: float, timeline: Timeline, *, peak: float, reached: float | None = None) -> float:
        warmup, steps = self.warmup_steps(timeline), timeline.steps * self.planned
        return warmup_cosine(step, peak=peak, end=self.min_lr, warmup=warmup, steps=steps, reached=reached)


class SgdSettings(MethodSettings):
    """Numbers of SGD with momentum."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last update that goes on."""

    milestones: tuple[float, ...] = ()
    """Shares of the run after which the learning rate is a tenth of what it was; none: a cosine to `min_lr`."""

    def learning_rate(self, step: float, timeline: Timeline, *, peak: float, reached: float | None = None) -> float:
        if not self.milestones:
            return super().learning_rate(step, timeline, peak=peak, reached=reached)
        warmup = self.warmup_steps(timeline)
        passed = sum(step >= share * timeline.steps for share in self.milestones)
        return peak * (step / warmup if step < warmup else 0.1**passed)

    def make_optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        return SGD(groups, lr=lr, momentum=self.momentum)


class TeacherSettings(MethodSettings):
    """Numbers of a moving average of the network."""

    teacher_momentum: float = Field(0.996, ge=0, le=1)
    """Share of itself that the teacher keeps in a step, at the start; a cosine leads to 1 at the end of the run."""

    def momentum_at(self, step: float, steps: float) -> float:
        """Return the teacher's momentum at a step of so many."""
        return cosine(step, start=self.teacher_momentum, end=1.0, steps=steps)


class ConstantTeacherSettings(MethodSettings):
    """Numbers of a moving average that always moves as fast."""

    teacher_momentum: float = Field(0.99, ge=0, le=1)
    """Share of itself that the teacher keeps in a step."""

    def momentum_at(self, step: float, steps: float) -> float:
        """Return the teacher's momentum at a step of so many."""
        return self.teacher_momentum


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Sort the trainable parameters of a pretraining network into named groups for an optimizer.

    Parameters of two or more dimensions are matrices, tokens and position embeddings included: they decay. Others are
    vectors and never do.

    Args:
        network: Its frozen parameters, the moving averages, are left out. It may say `owner(name)` and
            `lr_scale(name)` of a parameter: default `student`, or `dynamics` where the name has that part, and 1.

    Returns:
        `OWNER_matrices` and `OWNER_vectors` for every owner, as far as they are not empty, those of another rate apart
        (`OWNER_matrices_x0.81`); each with `name`, `params`, and a `weight_decay` of 0.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    owners = dict.fromkeys(owner for owner, _, _ in owned_parameters(network))
    for owner in owners:
        for kind in (MATRICES, VECTORS):
            groups[f"{owner}_{kind}"] = []
    for owner, name, parameter in owned_parameters(network):
        scale = lr_scale(network, name)
        group = f"{owner}_{MATRICES if parameter.ndim >= 2 else VECTORS}{'' if scale == 1 else f'_x{scale:.6g}'}"
        groups.setdefault(group, []).append(parameter)
    return [{"name": name, "params": params, "weight_decay": 0.0} for name, params in groups.items() if params]


def decays(group: str) -> bool:
    """Return whether a group of parameters decays, by its name."""
    return MATRICES in group


def scale_of(group: str) -> float:
    """Return what the learning rate of a group is multiplied by, by its name."""
    return float(group.rpartition("_x")[2]) if "_x" in group else 1.0


def owned_parameters(network: nn.Module) -> list[tuple[str, str, nn.Parameter]]:
    """Return owner, name and tensor of the trainable parameters."""
    owner = getattr(network, "owner", _owner)
    return [(owner(name), name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def lr_scale(network: nn.Module, name: str) -> float:
    """Return what the learning rate of a parameter is multiplied by."""
    said = getattr(network, "lr_scale", None)
    return 1.0 if said is None else said(name)


def _owner(name: str) -> str:
    return "dynamics" if "dynamics" in name.split(".") else "student"


@torch.no_grad()
def clip_per_tensor(gradients: Sequence[Tensor], maximum: float | None) -> dict[str, Tensor]:
    """Scale every gradient down to a norm of at most `maximum`, each on its own, without waiting for the device.

    Args:
        gradients: Changed in place.
        maximum: Largest norm allowed; None measures only.

    Returns:
        `norm` of all gradients together, before; `clipped`, the share of tensors that were scaled down.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    measured = {"norm": torch.linalg.vector_norm(norms)}
    if maximum is not None:
        torch._foreach_mul_(gradients, list((maximum / (norms + 1e-6)).clamp(max=1.0).unbind()))
        measured["clipped"] = (norms > maximum).float().mean()
    return measured


@torch.no_grad()
def clip_together(gradients: Sequence[Tensor], maximum: float | None) -> dict[str, Tensor]:
    """Scale gradients down alike, to a norm of all together of at most `maximum`; see `clip_per_tensor`."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    measured = {"norm": norm}
    if maximum is not None:
        torch._foreach_mul_(gradients, (maximum / (norm + 1e-6)).clamp(max=1.0))
        measured["clipped"] = (norm > maximum).float()
    return measured
