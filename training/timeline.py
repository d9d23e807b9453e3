"""How long a run is, in the units that schedules, sampler and checkpoints count in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timeline:
    """The length of a run; every schedule is a function of a step and this.

    Attributes:
        steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of one epoch, at least 1.
        batch_size: Frame pairs of one optimizer step, over all processes and accumulated micro-batches.
        visits_per_step: Opened videos (or worlds) of one optimizer step, likewise; each gives
            `batch_size / visits_per_step` pairs.
        epoch_stride: Epochs that the counter moves by at once; 5 in the released BDD100K recipe, where one pass over
            the files counts as five epochs.
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    visits_per_step: int
    epoch_stride: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "batch_size", "visits_per_step", "epoch_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a run must be at least 1, got {getattr(self, name)}")

    def epoch(self, step: int) -> int:
        """Return the epoch, from 0, that optimizer step `step` belongs to."""
        return step // (self.steps_per_epoch * self.epoch_stride) * self.epoch_stride
