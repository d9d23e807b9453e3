"""What a task starts from: a checkpoint, or an untrained network, with a new head."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from midway_hub.training.config import check_architecture
from midway_hub.training.initial import InitialSettings, initialise_dynamics, initialise_encoder
from midway_hub.training.settings import Settings
from pydantic import Field, field_validator

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import HeadConfig

_log = logging.getLogger("midway_hub")


class StartSettings(Settings):
    """What the weights are before the task, and which of them it trains."""

    weights: str | None = None
    """Registry name, Hub repo, folder or file of a checkpoint; null: an untrained network of `model`."""

    revision: str | None = None
    """Branch, tag or commit of a Hub repo."""

    model: dict[str, Any] = Field(default_factory=dict)
    """Architecture where `weights` is null: keyword arguments of `MidwayConfig`. Weights bring their own."""

    encoder: Literal["student", "teacher"] = "teacher"
    """Which of a checkpoint's two encoders serves both frames from now on."""

    dynamics: Literal["pretrained", "reinitialised"] = "pretrained"
    """`reinitialised` keeps the encoder alone of the checkpoint: the paper's "enc. only"."""

    freeze: bool = False
    """Train the head alone: the rest stays in eval mode and bit for bit as it was."""

    initial: InitialSettings = InitialSettings()
    """Where first weights, of an untrained network or of new dynamics, differ from the paper's."""

    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth of the last encoder block in training; it grows linearly from 0 at the first."""

    @field_validator("model")
    @classmethod
    def _model_is_an_architecture(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_architecture(value)
        return value


def starting_network(
    start: StartSettings, head: HeadConfig, *, which: Literal["flow_head", "segmentation_head"], seed: int
) -> MidwayNetwork:
    """Make the network that a task trains: one encoder for both frames, and a head.

    A head of the same configuration that the checkpoint has goes on being trained. Where the whole network is trained,
    a head for the other task would no longer fit its features, and is left out.

    Args:
        start: Where weights come from.
        head: Configuration of the head.
        which: What the network calls it.
        seed: Of everything that is drawn.

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
    return with_head(pretrained, start, head, which)


def with_head(
    pretrained: MidwayNetwork,
    start: StartSettings,
    head: HeadConfig,
    which: Literal["flow_head", "segmentation_head"],
) -> MidwayNetwork:
    """Return a network with the weights of `pretrained`, as far as they are wanted, and a head."""
    values = pretrained.config.to_dict() | {which: head.to_dict(), "drop_path_rate": start.drop_path}
    other = "segmentation_head" if which == "flow_head" else "flow_head"
    if not start.freeze and values.get(other) is not None:
        _log.warning("the checkpoint's %s is left out: training the whole network changes the features it reads", other)
        values[other] = None
    network = MidwayNetwork(MidwayConfig.from_dict(values))
    if start.dynamics == "reinitialised":
        initialise_dynamics(network, start.initial)
    kept = pretrained.state_dict()
    if start.dynamics == "reinitialised":
        kept = {name: value for name, value in kept.items() if not name.startswith(("dynamics.", f"{which}."))}
    if getattr(pretrained.config, which) != values[which]:
        kept = {name: value for name, value in kept.items() if not name.startswith(f"{which}.")}
    kept = {name: value for name, value in kept.items() if name in network.state_dict()}
    network.load_state_dict(kept, strict=False)
    network.image_processor = pretrained.image_processor
    if start.freeze:
        network.requires_grad_(False)
        getattr(network, which).requires_grad_(True)
    else:
        network.requires_grad_(True)
    return network
