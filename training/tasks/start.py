"""What a task starts from: a checkpoint, or an untrained network, with a new head."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import FlowHeadConfig, HeadConfig, SegmentationHeadConfig
from midway_hub.training.config import Architecture
from midway_hub.training.initial import InitialSettings, initialise_dynamics, initialise_encoder
from midway_hub.training.settings import Settings, from_home
from midway_hub.training.tasks.inheritance import OTHER, HeadName, NetworkShapes, inherit

_log = logging.getLogger("midway_hub")


def inherited_keys(config: MidwayConfig, which: HeadName) -> tuple[str, ...]:
    """Return what a run need not repeat of the configuration of a head that its checkpoint has."""
    if which == "segmentation_head":
        return ("slide",)
    return tuple(key for key in getattr(config, which) if key not in ("kind", "tile"))


class StartSettings(Settings):
    """What the weights are before the task, and which of them it trains."""

    weights: str | None = None
    """Registry name, Hub repo, folder or file of a checkpoint; null: an untrained network of `model`."""

    revision: str | None = None
    """Branch, tag or commit of a Hub repo."""

    model: Architecture = Field(default_factory=dict)
    """Architecture where `weights` is null: keyword arguments of `MidwayConfig`. Weights bring their own."""

    encoder: Literal["student", "teacher"] = "teacher"
    """Which of a checkpoint's two encoders serves both frames from now on."""

    dynamics: Literal["pretrained", "reinitialised"] = "pretrained"
    """`reinitialised` keeps the encoder alone of the checkpoint: the paper's "enc. only"."""

    freeze: bool = False
    """Train the head alone: the rest stays in eval mode and bit for bit as it was."""

    freeze_encoder: bool = False
    """Train head and dynamics, and leave the encoder bit for bit as it was."""

    initial: InitialSettings = InitialSettings()
    """Where first weights, of an untrained network or of new dynamics, differ from the paper's."""

    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last encoder block in training; it grows linearly from 0 at the first."""

    @field_validator("weights")
    @classmethod
    def _weights_from_home(cls, value: str | None) -> str | None:
        return str(from_home(Path(value))) if value and value.startswith("~") else value


def starting_network(
    start: StartSettings, head: HeadConfig, *, which: HeadName, seed: int, named: Container[str] | None = None
) -> MidwayNetwork:
    """Make the network that a task trains: one encoder for both frames, and a head.

    What the checkpoint's head has goes on being trained as far as it fits; see `inherit`. Where the whole network is
    trained, a head for the other task would no longer fit its features, and is left out.

    Args:
        start: Where weights come from.
        head: Configuration of the head.
        which: What the network calls it.
        seed: Of everything that is drawn.
        named: What of the head's configuration was asked for, null: all of it; see `headed`.

    Raises:
        ValueError: The checkpoint does not go with the head.
        OSError: The checkpoint cannot be read.
    """
    torch.manual_seed(seed)
    if start.weights is None:
        pretrained = MidwayNetwork(MidwayConfig(**{**start.model, "target_network": "shared"}))
        initialise_encoder(pretrained, start.initial)
        initialise_dynamics(pretrained, start.initial)
    else:
        pretrained = MidwayNetwork.from_pretrained(start.weights, revision=start.revision).train()
        if pretrained.config.target_network == "ema":
            pretrained = pretrained.with_shared_encoder(start.encoder)
    return with_head(pretrained, start, head, which, named)


def with_head(
    pretrained: MidwayNetwork,
    start: StartSettings,
    head: HeadConfig,
    which: HeadName,
    named: Container[str] | None = None,
) -> MidwayNetwork:
    """Return a network with the weights of `pretrained`, as far as they are wanted and fit, and a head."""
    config = headed(pretrained.config, start, head, which, named)
    other = OTHER[which]
    if getattr(pretrained.config, other) is not None and getattr(config, other) is None:
        _log.warning("the checkpoint's %s is left out: training the whole network changes the features it reads", other)
    network = MidwayNetwork(config)
    if start.dynamics == "reinitialised":
        initialise_dynamics(network, start.initial)
    found, weights = (
        inherit(NetworkShapes.of(pretrained), NetworkShapes.of(network), start, which),
        pretrained.state_dict(),
    )
    network.load_state_dict({name: weights[name] for name in found.kept}, strict=False)
    network.image_processor = pretrained.image_processor
    if start.weights is not None:
        for part, text in found.described().items():
            _log.info("%s: %s", part, text)
    network.requires_grad_(not start.freeze)
    network.student.requires_grad_(not (start.freeze or start.freeze_encoder))
    getattr(network, which).requires_grad_(True)
    return network


def headed(
    config: MidwayConfig, start: StartSettings, head: HeadConfig, which: HeadName, named: Container[str] | None = None
) -> MidwayConfig:
    """Return the architecture that a task trains: that of a checkpoint with the wanted head.

    Sizes of a head that the checkpoint has, and whether it sees frames through windows, stay the checkpoint's where
    `named` does not say that others were asked for: other sizes would start it anew, and the same weights give other
    results with other windows.

    Raises:
        ValueError: The checkpoint has no dynamics to read flow off, and new ones are not asked for.
    """
    there = getattr(config, which)
    if there is not None and named is not None:
        before = _config_of(which, there)
        if type(before) is not type(head) and "kind" not in named and isinstance(head, FlowHeadConfig):
            head = _config_of(which, before.to_dict() | {"tile": head.tile})
        if type(before) is type(head):
            keys = inherited_keys(config, which)
            stay = {name: getattr(before, name) for name in keys if name not in named}
            head = dataclasses.replace(head, **stay)
    values = config.to_dict() | {which: head.to_dict(), "drop_path_rate": start.drop_path, "target_network": "shared"}
    if not start.freeze:
        values[OTHER[which]] = None
    if getattr(head, "reads", None) == "decoder":
        if config.pair_decoder is None:
            raise ValueError(f"task.head.reads=decoder: {start.weights or 'start.model'} has none; croco trains one")
    elif which == "flow_head" and not config.dynamics and getattr(head, "dynamics", True):
        if start.dynamics != "reinitialised":
            raise ValueError(
                f"{start.weights} is an encoder alone, and flow is read off dynamics: start.dynamics=reinitialised "
                "makes new ones"
            )
        values["dynamics"] = True
    return MidwayConfig.from_dict(values)


def _config_of(which: HeadName, values: Mapping[str, Any]) -> HeadConfig:
    found: HeadConfig = (FlowHeadConfig if which == "flow_head" else SegmentationHeadConfig).of(values)
    return found
