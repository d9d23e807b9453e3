"""What the engine asks of what it trains and of what feeds it; it knows no method and no data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class StepOutput:
    """What a forward pass returns.

    Attributes:
        losses: Scalars with gradient, already weighted; their sum is minimised. Each is a mean over the micro-batch.
        diagnostics: Detached scalars that are logged, and nothing else.
    """

    losses: dict[str, Tensor]
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Trainable(ABC):
    """A pretraining method or a supervised task, as the engine sees it.

    Attributes:
        network: One module that holds everything that is trained or averaged. `network(batch)` returns a `StepOutput`.
            Its state dict, buffers included, is what a checkpoint holds of the weights.
    """

    network: nn.Module

    @abstractmethod
    def make_optimizer(self) -> Optimizer:
        """Return the optimizer over the trainable parameters; its groups carry a `name`."""

    @abstractmethod
    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        """Set what changes with the step (learning rates, weight decay, ...) and return it for the log.

        A pure function of `step`: called before the first micro-batch of every optimizer step.
        """

    def before_update(self, step: int) -> dict[str, Tensor]:
        """Change gradients (all there, unscaled) before the optimizer takes them; returns norms for the log."""
        return {}

    def after_update(self, step: int) -> None:  # noqa: B027
        """Do what follows a step that was taken: moving averages, centres. Called once per optimizer step."""

    def after_rejection(self, step: int) -> None:  # noqa: B027
        """Forget what was gathered for a step that was not taken."""

    def collapse_values(self) -> dict[str, tuple[float, str]]:
        """Return, for losses that show a collapse, the value they then sit at, and what to do about it."""
        return {}

    @abstractmethod
    def export(self) -> PreTrainedModel:
        """Return what was trained as a network of the hub, on the CPU in fp32."""


class Batches(Protocol):
    """Where micro-batches come from: a pure function of their number."""

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """Yield this process's micro-batches `first`, ..., `last - 1`.

        With A micro-batches accumulated per step, optimizer step s takes numbers s·A, ..., s·A + A - 1.
        """
        ...

    def finish(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Turn a micro-batch into what the network takes, on `device`: transfer, batched augmentation, normalising."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data, JSON-able: a resumed run compares it."""
        ...

    def rejected(self) -> list[dict[str, str]]:
        """Return what could not be read so far in this process: `file`, `reason`."""
        ...
