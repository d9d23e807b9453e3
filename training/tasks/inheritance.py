"""What a network takes over from a checkpoint, tensor by tensor, and what of it starts anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from midway_hub import MidwayConfig, MidwayNetwork

if TYPE_CHECKING:
    from midway_hub.training.tasks.start import StartSettings

HeadName = Literal["flow_head", "segmentation_head"]
OTHER: dict[HeadName, HeadName] = {"flow_head": "segmentation_head", "segmentation_head": "flow_head"}

_PARTS = {
    "student": "encoder",
    "dynamics": "dynamics",
    "pair_decoder": "decoder",
    "flow_head": "flow head",
    "segmentation_head": "segmentation head",
}
_NAMED = 3


@dataclass(frozen=True)
class Inherited:
    """Tensors of a network by where they come from.

    Attributes:
        kept: Names of those that are the checkpoint's.
        fresh: Why each of the others starts anew, by name.
    """

    kept: tuple[str, ...]
    fresh: Mapping[str, str]

    def described(self) -> dict[str, str]:
        """Return a line for every part of the network: encoder, dynamics, heads."""
        lines = {}
        for prefix, part in _PARTS.items():
            kept = sum(name.split(".")[0] == prefix for name in self.kept)
            fresh = {name: why for name, why in self.fresh.items() if name.split(".")[0] == prefix}
            if kept or fresh:
                lines[part] = _line(kept, fresh)
        return lines


@dataclass(frozen=True)
class NetworkShapes:
    """A configuration and the shapes of its tensors by name."""

    config: MidwayConfig
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, network: MidwayNetwork) -> NetworkShapes:
        """Return a network's."""
        return cls(network.config, {name: tuple(value.shape) for name, value in network.state_dict().items()})

    @classmethod
    def without_weights(cls, config: MidwayConfig) -> NetworkShapes:
        """Return that of a configuration, without memory for weights."""
        with torch.device("meta"):
            return cls.of(MidwayNetwork(config))


def inherit(there: NetworkShapes, wanted: NetworkShapes, start: StartSettings, which: HeadName) -> Inherited:
    """Tell what of a checkpoint fits: tensors of the same name and shape, unless they would mean something else.

    Something else is meant by a classifier of other classes, by dynamics where new ones are asked for, and by a head
    that reads those.

    Args:
        there: The checkpoint, with one encoder for both frames.
        wanted: The network.
        start: What is asked for.
        which: The head that is trained.
    """
    fresh = {name: why for name in wanted.shapes if (why := _why_not(name, there, wanted, start, which))}
    return Inherited(tuple(name for name in wanted.shapes if name not in fresh), fresh)


def _why_not(
    name: str, there: NetworkShapes, wanted: NetworkShapes, start: StartSettings, which: HeadName
) -> str | None:
    part, *rest = name.split(".")
    if start.dynamics == "reinitialised" and (
        part == "dynamics" or (part == which and _reads_dynamics(wanted.config, which))
    ):
        return "start.dynamics=reinitialised"
    if name not in there.shapes:
        return "the checkpoint has none"
    if there.shapes[name] != wanted.shapes[name]:
        return f"the checkpoint's is {_text(there.shapes[name])}, wanted is {_text(wanted.shapes[name])}"
    other_classes = _classes(there.config) != _classes(wanted.config)
    if part == "segmentation_head" and "classifier" in rest and other_classes:
        return "the checkpoint's is for other classes"
    return None


def _reads_dynamics(config: MidwayConfig, which: HeadName) -> bool:
    if which == "flow_head":
        return (config.flow_head or {}).get("reads") != "decoder"
    return (config.segmentation_head or {})["features"] == "backward"


def _classes(config: MidwayConfig) -> list[str]:
    return list((config.segmentation_head or {}).get("classes", ()))


def _line(kept: int, fresh: Mapping[str, str]) -> str:
    if not fresh:
        return f"all {kept} tensors are the checkpoint's"
    reasons: dict[str, list[str]] = {}
    for name, why in fresh.items():
        reasons.setdefault(why, []).append(name)
    if not kept and len(reasons) == 1:
        return f"all {len(fresh)} tensors start anew: {next(iter(reasons))}"
    told = "; ".join(f"{_some(names)} ({why})" for why, names in reasons.items())
    return f"{kept} tensors are the checkpoint's, {len(fresh)} start anew: {told}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
