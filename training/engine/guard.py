"""Steps whose loss or gradient is not finite: all processes agree, the step is not taken, and too many end the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from midway_hub.training.engine.averages import Averages
from midway_hub.training.engine.settings import EngineSettings

_ORDINARY_OVERFLOWS = 20
"""fp16 starts with a loss scale of 65536; halved this often it is far below one, and scaling is not what is wrong."""


class NonFiniteError(RuntimeError):
    """Too many steps had a loss or gradient that was not finite."""


@dataclass(frozen=True)
class Agreement:
    """What all processes know after the one exchange of a step.

    Attributes:
        loss_finite: Every loss of every process was finite.
        gradient_finite: So was the gradient.
        stop: A process was asked to stop.
        save: A checkpoint is due.
        means: Mean values since the last read, where this step reads them, else None.
    """

    loss_finite: bool
    gradient_finite: bool
    stop: bool
    save: bool
    means: dict[str, float] | None

    @property
    def good(self) -> bool:
        """Whether the step can be taken."""
        return self.loss_finite and self.gradient_finite


def agree(
    values: Mapping[str, Tensor], averages: Averages, *, stop: bool, save: bool, read: bool, distributed: bool
) -> Agreement:
    """Let all processes agree on the step at hand, with one read from the device.

    Args:
        values: Scalars of the step on the device, `loss` and `grad_norm` among them; added to the averages if finite.
        averages: Means since the last read.
        stop: This process was asked to stop.
        save: This process holds that a checkpoint is due.
        read: Whether this step reads the averages too.
        distributed: Whether there are other processes.
    """
    loss, norm = values["loss"], values["grad_norm"]
    asked = [torch.full((), float(flag), device=loss.device) for flag in (stop, save)]
    flags = torch.stack([(~torch.isfinite(loss)).float(), (~torch.isfinite(norm)).float(), *asked])
    if distributed:
        dist.all_reduce(flags, dist.ReduceOp.MAX)  # Fabric's all_reduce adds a barrier, which waits for the device
    averages.add(values, weight=1 - flags[:2].amax())
    if read:
        flags = torch.cat([flags, averages.packed(across_processes=distributed)])
    bad_loss, bad_gradient, any_stop, any_save, *sums = read_from_device(flags)
    return Agreement(
        loss_finite=not bad_loss,
        gradient_finite=not bad_gradient,
        stop=bool(any_stop),
        save=bool(any_save),
        means=averages.unpack(sums) if read else None,
    )


def read_from_device(vector: Tensor) -> list[float]:
    """Wait for the device and return its numbers: the only place in a step that does."""
    return vector.tolist()


class Guard:
    """Counts steps that were not taken and says when it is enough."""

    def __init__(self, settings: EngineSettings, *, scaled: bool) -> None:
        self._limits = (settings.max_bad_steps, settings.max_bad_total)
        self._scaled = scaled
        self.in_a_row = self.total = self.overflows = 0

    def is_incident(self, agreement: Agreement) -> bool:
        """Count a step; return whether it is more than a loss scale finding its size."""
        if agreement.good:
            self.in_a_row = self.overflows = 0
            return False
        if self._scaled and agreement.loss_finite and self.overflows < _ORDINARY_OVERFLOWS:
            self.overflows += 1
            return False
        self.in_a_row += 1
        self.total += 1
        return True

    def stop_if_hopeless(self, last_report: str) -> None:
        """End the run if there were too many.

        Raises:
            NonFiniteError: Too many in a row, or in all.
        """
        most_in_a_row, most = self._limits
        if self.in_a_row < most_in_a_row and self.total < most:
            return
        raise NonFiniteError(
            f"{self.in_a_row} steps in a row and {self.total} in all had a loss or gradient that was not finite "
            f"(engine.max_bad_steps {most_in_a_row}, engine.max_bad_total {most}); the weights are those of the last "
            f"finite step. {last_report}. Look at the saved batches; a smaller learning rate, a longer warm-up, or "
            "bf16 instead of fp16 are what helps most often"
        )

    def state(self) -> dict[str, int]:
        """Return the counts, for a checkpoint."""
        return {"in_a_row": self.in_a_row, "total": self.total, "overflows": self.overflows}

    def load(self, state: Mapping[str, int]) -> None:
        """Take up the counts of a checkpoint."""
        self.in_a_row, self.total, self.overflows = state["in_a_row"], state["total"], state["overflows"]
