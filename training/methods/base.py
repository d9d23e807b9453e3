"""What all pretraining methods share: what they declare, the step as the engine calls it, teacher and export."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.compat import Oddities
from midway_hub.training.data.needs import Needs, Views
from midway_hub.training.ema import MovingAverage
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.methods.optimisation import (
    MethodSettings,
    clip_per_tensor,
    clip_together,
    decays,
    owned_parameters,
    parameter_groups,
    scale_of,
)
from midway_hub.training.timeline import Timeline

Architecture = MidwayConfig | Mapping[str, Any]


class Method(Trainable):
    """A pretraining method: it trains a network, which `self.network` holds.

    A method is one file: its settings, its views, its network (an `nn.Module` whose forward maps a batch to losses),
    and what follows a step. `register` makes it known by its `name`; nothing else has to be told of it.

    The network may have, beside its forward: `follows()`, the moving averages and what they follow; `after_update()`
    and `after_rejection()`, called once per step that was taken or not; `owner(name)` and `lr_scale(name)`, which sort
    parameters; `averages_buffers = False` where averages keep buffers of their own.

    Args:
        settings: The method's numbers: an instance of the class attribute `settings`, or keywords for one.
        model: Architecture, or keywords for it.
        timeline: Length of the run.
        compat: Oddities of the released code that are wanted; default: none.
        views: What its views are like: of some methods the network depends on it; default: the method's own.
        lr_batch_size: Samples per step that the learning rate is scaled by; default: the timeline's batch size.

    Attributes:
        settings: The class of its settings.
        views: The class of its `views` section.
        oddities: The class of its `compat` section.
        unit: What a sample is called.
        dynamics: Whether it trains dynamics.
        formulas: What computes every loss, by the beginning of its name, for reading maps.
        numbers: Its settings, as they were chosen.
        network: What is trained.

    Raises:
        ValueError: Settings or architecture do not suit the method.
    """

    name: ClassVar[str]
    settings: ClassVar[type[MethodSettings]]
    views: ClassVar[type[Views]]
    oddities: ClassVar[type[Oddities]] = Oddities
    unit: ClassVar[str] = "pairs"
    dynamics: ClassVar[bool] = False
    formulas: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    numbers: MethodSettings

    def __init__(
        self,
        settings: MethodSettings | Mapping[str, Any] | None,
        model: Architecture,
        timeline: Timeline,
        compat: Oddities | None = None,
        *,
        views: Views | None = None,
        lr_batch_size: int | None = None,
    ) -> None:
        self.numbers = self.settings.model_validate({} if settings is None else settings)
        if self.numbers.name != self.name:
            raise ValueError(f"method {self.name} got the settings of method {self.numbers.name!r}")
        self.timeline, self.compat, self.chosen_views = timeline, compat or self.oddities(), views or self.views()
        self.peak_learning_rate = self.numbers.peak_learning_rate(lr_batch_size or timeline.batch_size)
        self.warmup_steps = self.numbers.warmup_steps(timeline)
        self.network = self.make_network(model)
        self._owned = owned_parameters(self.network)
        follows = self.network.follows() if hasattr(self.network, "follows") else {}
        self.teacher = MovingAverage(follows, buffers=getattr(self.network, "averages_buffers", True))

    @classmethod
    def check_architecture(cls, model: Mapping[str, Any]) -> None:
        """Raise a ValueError where keywords make no architecture that the method can train."""
        if "timm" in model:
            raise ValueError(f"method {cls.name} trains a ViT; leave out timm={model['timm']!r}")
        MidwayConfig(**{**model, "dynamics": cls.dynamics})

    @abstractmethod
    def make_network(self, model: Architecture) -> nn.Module:
        """Return the network that is trained: `network(batch)` is a `StepOutput`."""

    @property
    @abstractmethod
    def readable(self) -> nn.Module:
        """What probes read features of: it has `encode` and a `config` with `patch_size` and `dynamics`."""

    def needs(self) -> Needs:
        """Return what the method asks of the data."""
        return self.chosen_views.needs()

    # -- the step, as the engine calls it --------------------------------------------------------------------------

    def make_optimizer(self) -> Optimizer:
        return self.numbers.make_optimizer(parameter_groups(self.network), self.peak_learning_rate)

    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        values = self.values(step)
        for group in optimizer.param_groups:
            group["lr"] = values["learning_rate"] * scale_of(group["name"])
            if decays(group["name"]):
                group["weight_decay"] = self.group_decay(group["name"], values["weight_decay"])
        return values

    def before_update(self, step: int) -> dict[str, Tensor]:
        gradients: dict[str, list[Tensor]] = {}
        for owner, _, parameter in self._owned:
            if parameter.grad is not None:
                gradients.setdefault("all" if self.numbers.clips == "all" else owner, []).append(parameter.grad)
        clip = clip_per_tensor if self.numbers.clips == "tensor" else clip_together
        measured = {}
        for owner, tensors in gradients.items():
            found = clip(tensors, self.numbers.clip if self.is_clipped(owner) else None)
            measured.update({f"gradient_{what}_{owner}": value for what, value in found.items()})
        return measured

    def after_update(self, step: int) -> None:
        if self.teacher.averages:
            self.teacher.update(self.values(step)["momentum"])
        if hasattr(self.network, "after_update"):
            self.network.after_update()

    def after_rejection(self, step: int) -> None:
        if hasattr(self.network, "after_rejection"):
            self.network.after_rejection()

    # -- numbers of a step -----------------------------------------------------------------------------------------

    def values(self, step: int) -> dict[str, float]:
        """Return `learning_rate`, `weight_decay` and, of a teacher, its `momentum` at an optimizer step."""
        numbers, timeline = self.numbers, self.timeline
        values = {
            "learning_rate": numbers.learning_rate(step, timeline, peak=self.peak_learning_rate),
            "weight_decay": numbers.decay(step, timeline),
        }
        if hasattr(numbers, "momentum_at"):
            values["momentum"] = numbers.momentum_at(step, timeline.steps)
        return values

    def group_decay(self, group: str, scheduled: float) -> float:
        """Return the weight decay of a group of matrices; oddities may change it."""
        return scheduled

    def is_clipped(self, owner: str) -> bool:
        """Return whether gradients of an owner are clipped; oddities may change it."""
        return True


def hub_network(
    model: Architecture, method: str, *, target_network: str, dynamics: bool = False, drop_path: float = 0.0
) -> MidwayConfig:
    """Return the architecture of a network of the hub that a method trains.

    Args:
        model: Architecture, or keywords for it.
        method: Name of the method, for errors.
        target_network: `ema` where it has a moving average, else `shared`.
        dynamics: Whether it trains dynamics.
        drop_path: Stochastic depth of the student's last block.

    Raises:
        ValueError: The architecture decides something that is the method's.
    """
    keywords = model.to_dict() if isinstance(model, MidwayConfig) else dict(model)
    if keywords.get("target_network", target_network) != target_network:
        reason = "the target is encoded by a moving average" if target_network == "ema" else "there is one encoder"
        raise ValueError(
            f"method {method} needs target_network {target_network!r}, got {keywords['target_network']!r}: {reason}"
        )
    if not isinstance(model, MidwayConfig) and "drop_path_rate" in keywords:
        raise ValueError("model.drop_path_rate is set by the method: use method.drop_path instead")
    if dynamics and not keywords.get("dynamics", True):
        raise ValueError(f"method {method} trains dynamics, but model.dynamics is false; method dino has none")
    decided = {"dynamics": dynamics, "drop_path_rate": drop_path, "target_network": target_network}
    return MidwayConfig(**{**keywords, **decided})


def exported_network(trained: MidwayNetwork) -> MidwayNetwork:
    """Return a trained network of the hub in eval mode, on the CPU in fp32, without drop path."""
    config = MidwayConfig.from_dict({**trained.config.to_dict(), "drop_path_rate": 0.0})
    exported = MidwayNetwork(config)
    exported.load_state_dict(trained.state_dict())
    return exported.eval()


class HubMethod(Method):
    """A method whose network holds one of the hub, `network.model`: what probes read and what is exported."""

    @property
    def readable(self) -> nn.Module:
        return self.network.model

    def export(self) -> MidwayNetwork:
        """Return what was trained, in eval mode, on the CPU in fp32, without the method's heads and drop path."""
        return exported_network(self.network.model)
