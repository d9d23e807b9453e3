"""One optimizer step, from learning rate to moving averages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from midway_hub.training.engine.averages import Averages
from midway_hub.training.engine.feed import Feed
from midway_hub.training.engine.guard import Agreement, agree
from midway_hub.training.engine.protocol import Batch, Batches, StepOutput, Trainable
from midway_hub.training.engine.random_state import RandomState
from midway_hub.training.engine.settings import EngineSettings

_TAKEN = {"loss", "grad_norm"}


@dataclass(frozen=True)
class StepRecord:
    """What a step leaves behind for the log and the guard.

    Attributes:
        rates: What the schedule set.
        agreement: What all processes agreed on.
        micro_batches: This process's, before `Batches.finish`.
        random_state: This process's generators before the first micro-batch.
        values: Scalars of this process on the device: every loss, their sum `loss`, diagnostics, `grad_norm`, ...
    """

    rates: dict[str, float]
    agreement: Agreement
    micro_batches: list[Batch]
    random_state: RandomState
    values: dict[str, Tensor]


class OptimizerStep:
    """Takes optimizer steps: everything that is needed for one is here."""

    def __init__(self, trainable: Trainable, batches: Batches, fabric: Fabric, settings: EngineSettings) -> None:
        self.trainable = trainable
        self.batches = batches
        self.fabric = fabric
        self.accumulate = settings.accumulate
        self.distributed = fabric.world_size > 1
        trainable.network.to(fabric.device)
        self.optimizer = trainable.make_optimizer()
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.scaler: torch.amp.GradScaler | None = getattr(fabric.strategy.precision, "scaler", None)
        self.averages = Averages(fabric.device)

    def wrap(self, compile: bool | str) -> None:
        """Wrap the network for autocast, several processes and compilation; after its weights are loaded."""
        forward: nn.Module = _Forward(self.trainable.network)
        if compile:
            forward = torch.compile(forward, mode=None if compile is True else compile)
        self.forward = self.fabric.setup_module(forward)
        self.trainable.network.train()

    def take(self, step: int, feed: Feed, *, stop: bool, save: bool, read: bool) -> StepRecord:
        """Do optimizer step `step`, counted from 0; waits for the device once.

        Args:
            step: Its number.
            feed: Gives its micro-batches.
            stop: This process was asked to stop after it.
            save: This process holds that a checkpoint is due after it.
            read: Read the means since the last read, too.
        """
        rates = self.trainable.schedule(self.optimizer, step)
        generators = RandomState.capture(self.fabric.device)
        micro_batches: list[Batch] = []
        values: dict[str, Tensor] = {}

        for index in range(self.accumulate):
            micro_batches.append(feed.next())
            more_to_come = index + 1 < self.accumulate
            with self.fabric.no_backward_sync(self.forward, enabled=more_to_come):
                losses, diagnostics = self.forward(self.batches.finish(micro_batches[-1], self.fabric.device))
                loss = sum(losses.values()) / self.accumulate
                self.fabric.backward(loss)
            _add({**losses, **diagnostics, "loss": sum(losses.values())}, values, self.accumulate)

        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        values["grad_norm"] = self._gradient_norm()
        values |= self.trainable.before_update(step)
        agreement = agree(values, self.averages, stop=stop, save=save, read=read, distributed=self.distributed)

        if agreement.good:
            self.optimizer.step()
            self.trainable.after_update(step)
        else:
            self.trainable.after_rejection(step)
        if self.scaler:
            self.scaler.update()
        self.trainable.network.zero_grad(set_to_none=True)
        return StepRecord(rates, agreement, micro_batches, generators, values)

    def _gradient_norm(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            raise RuntimeError(
                "no trainable parameter got a gradient: no loss of the network depends on the optimizer's parameters"
            )
        return torch.nn.utils.get_total_norm(gradients)


class _Forward(nn.Module):
    """The network with plain dicts as output: Fabric walks through outputs and cannot rebuild frozen dataclasses."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        output: StepOutput = self.network(batch)
        if _TAKEN & output.losses.keys() or not output.losses:
            raise ValueError(
                f"losses need names, other than {sorted(_TAKEN)}; the network returned {list(output.losses)}"
            )
        return output.losses, output.diagnostics


def _add(scalars: dict[str, Tensor], values: dict[str, Tensor], count: int) -> None:
    for name, scalar in scalars.items():
        share = scalar.detach() / count
        values[name] = values[name] + share if name in values else share
