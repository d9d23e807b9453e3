"""What the supervised tasks share: optimizer, schedule, frozen readout and export."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from midway_hub import MidwayNetwork
from midway_hub.training.engine.protocol import StepOutput, Trainable
from midway_hub.training.tasks.inheritance import HeadName
from midway_hub.training.tasks.optimisation import OptimisationSettings, parameter_groups
from midway_hub.training.timeline import Timeline


class TaskNetwork(nn.Module):
    """A network with a head, and the task's loss.

    Args:
        model: The network that is trained.
        head: Name of its head.
        freeze: Whether all but the head stays in eval mode.
    """

    def __init__(self, model: MidwayNetwork, head: HeadName, *, freeze: bool) -> None:
        super().__init__()
        self.model, self.head, self.freeze = model, head, freeze
        self.train()

    def train(self, mode: bool = True) -> TaskNetwork:
        """Switch between training and eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        if self.freeze:
            self.model.eval()
            getattr(self.model, self.head).train(mode)
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Return the losses of a micro-batch."""
        raise NotImplementedError

    def small_batch(self) -> dict[str, Tensor]:
        """Return the smallest batch that shows which parameters matter."""
        raise NotImplementedError


class Task(Trainable):
    """A supervised task on the engine.

    Args:
        network: What is trained.
        optimisation: Learning rate, schedule and decay.
        timeline: Length of the run.
    """

    network: TaskNetwork

    def __init__(self, network: TaskNetwork, optimisation: OptimisationSettings, timeline: Timeline) -> None:
        self.network, self.optimisation, self.timeline = network, optimisation, timeline
        freeze_idle(network)

    def beside(self) -> nn.Module | None:
        """Return what is trained beside the network and not exported."""
        return None

    def make_optimizer(self) -> Optimizer:
        groups = parameter_groups(self.network.model, self.beside(), self.optimisation)
        return AdamW(groups, lr=self.optimisation.lr, betas=self.optimisation.betas)

    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        rate = self.optimisation.learning_rate(step, self.timeline)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        return {"learning_rate": rate}

    def before_update(self, step: int) -> dict[str, Tensor]:
        if self.optimisation.clip is None:
            return {}
        trained = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.optimisation.clip)
        return {"gradient_clipped": (norm > self.optimisation.clip).float()}

    def export(self) -> MidwayNetwork:
        """Return the network with its head, in eval mode, on the CPU in fp32, without drop path."""
        model = self.network.model
        config = copy.deepcopy(model.config)
        config.drop_path_rate = 0.0
        exported = MidwayNetwork(config)
        exported.load_state_dict(model.state_dict())
        exported.image_processor = model.image_processor
        return exported.eval()


def freeze_idle(network: TaskNetwork) -> None:
    """Take out of training what no loss of the task depends on: several processes would wait for its gradients.

    Flow reads no prediction of the finest level's refined target; segmentation reads no dynamics, or only part of them.
    """
    training = network.training
    sum(network.eval()(network.small_batch()).losses.values()).backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    network.zero_grad(set_to_none=True)
    network.train(training)
