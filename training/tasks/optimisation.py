"""How a task is optimised: AdamW with layer decay, warm-up, and a cosine or a straight line down to the end."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from midway_hub import MidwayNetwork
from midway_hub.training.schedules import warmup_cosine
from midway_hub.training.settings import Settings
from midway_hub.training.timeline import Timeline

BODY = ("student", "teacher", "dynamics")


class OptimisationSettings(Settings):
    """Numbers of the optimisation. The defaults are those of CroCo v2's flow finetuning."""

    lr: float = Field(2e-5, gt=0)
    """Peak learning rate, for the batch as it is."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate at the end of the run."""

    schedule: Literal["cosine", "poly"] = "cosine"
    """From the peak to the end along half a cosine, or along a straight line (mmsegmentation's poly of power 1)."""

    warmup_epochs: float | None = Field(1.0, ge=0)
    """Epochs in which the learning rate rises linearly from 0. Exactly one of this and `warmup_steps` is given."""

    warmup_steps: int | None = Field(None, ge=0)
    """Optimizer steps in which the learning rate rises."""

    warmup_start: float = Field(0.0, ge=0, le=1)
    """Share of the learning rate that the rise starts from: 1e-6 in mmsegmentation."""

    weight_decay: float = Field(0.05, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the gradient's mean and square."""

    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor of the learning rate from each block to the one below it; 1 trains all at the same rate."""

    body_scale: float = Field(1.0, gt=0)
    """Factor of the learning rate of encoder and dynamics against the head's, on top of `layer_decay`."""

    clip: float | None = Field(None, gt=0)
    """Largest norm of all gradients together; null does not clip."""

    @model_validator(mode="after")
    def _one_warmup(self) -> OptimisationSettings:
        if (self.warmup_epochs is None) == (self.warmup_steps is None):
            raise ValueError(
                f"give exactly one of warmup_epochs and warmup_steps, got {self.warmup_epochs} and "
                f"{self.warmup_steps}; set the other to null"
            )
        return self

    def rising_steps(self, timeline: Timeline) -> int:
        """Return the optimizer steps in which the learning rate rises."""
        epochs = round((self.warmup_epochs or 0) * timeline.steps_per_epoch)
        return min(epochs if self.warmup_steps is None else self.warmup_steps, timeline.steps)

    def learning_rate(self, step: int, timeline: Timeline) -> float:
        """Return the learning rate of an optimizer step, counted from 0, before layer decay."""
        rising = self.rising_steps(timeline)
        if step < rising:
            return self.lr * (self.warmup_start + (1 - self.warmup_start) * step / rising)
        if self.schedule == "cosine":
            return warmup_cosine(step, peak=self.lr, end=self.min_lr, warmup=rising, steps=timeline.steps)
        left = 1 - (step - rising) / max(1, timeline.steps - rising)
        return self.min_lr + (self.lr - self.min_lr) * max(0.0, left)


def parameter_groups(model: MidwayNetwork, others: nn.Module | None, settings: OptimisationSettings) -> list[dict]:
    """Sort trainable parameters by layer and by whether they decay.

    Layers are counted as in mmsegmentation: patches, positions and CLS token are 0, encoder block i is i + 1, all else
    (dynamics, heads) comes after the last. A layer's rate is `layer_decay` to the number of layers above it. Parameters
    of one dimension do not decay; position embeddings and tokens do.

    Args:
        model: The network.
        others: Modules that are trained beside it and not exported; they belong to the last layer.
        settings: Layer decay and weight decay.

    Returns:
        Groups for AdamW with `name`, `params`, `weight_decay` and `scale`, the factor of the learning rate.
    """
    groups: dict[str, dict] = {}
    last = model.config.depth + 1
    named = [*model.named_parameters(), *(others.named_parameters() if others is not None else ())]
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        layer = layer_of(name, last)
        kind = "matrices" if parameter.ndim >= 2 else "vectors"
        body = settings.body_scale != 1 and name.split(".")[0] in BODY
        key = f"layer_{layer}_{'body_' if body else ''}{kind}"
        group = groups.setdefault(
            key,
            {
                "name": key,
                "params": [],
                "weight_decay": settings.weight_decay if kind == "matrices" else 0.0,
                "scale": settings.layer_decay ** (last - layer) * (settings.body_scale if body else 1.0),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def layer_of(name: str, last: int) -> int:
    """Return the layer that a parameter belongs to, by its name in a `MidwayNetwork`."""
    owner, *rest = name.split(".")
    if owner not in ("student", "teacher") or not rest:
        return last
    if rest[0] in ("patch_embed", "pos_embed", "cls_token"):
        return 0
    return int(rest[1]) + 1 if rest[0] == "blocks" else last
