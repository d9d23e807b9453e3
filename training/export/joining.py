"""Heads that were trained apart on the same frozen encoder and dynamics, in one network."""

from __future__ import annotations

from pathlib import Path

import torch
from midway_hub.training.tasks.inheritance import OTHER, HeadName
from torch import Tensor

from midway_hub import MidwayConfig, MidwayNetwork

HEADS: tuple[HeadName, ...] = tuple(OTHER)


class JoinError(RuntimeError):
    """Two networks cannot be joined: what their heads read differs."""


def join_heads(network: MidwayNetwork, folder: Path) -> MidwayNetwork:
    """Return a network with the heads of another one, too, that stands on the same encoder and dynamics.

    Args:
        network: Whose heads win where both have one.
        folder: The other network, as `MidwayNetwork.from_pretrained` loads it.

    Raises:
        JoinError: Encoder or dynamics of the two are not the same bit for bit, or the other has no head to give.
    """
    other = MidwayNetwork.from_pretrained(folder)
    ours, theirs = network.state_dict(), other.state_dict()
    differing = [name for name in _body(ours) | _body(theirs) if not _same(ours.get(name), theirs.get(name))]
    if differing:
        raise JoinError(
            f"{folder} has another encoder or other dynamics ({', '.join(sorted(differing)[:3])}, ...): heads are "
            "joined where both were trained with start.freeze=true from the same weights"
        )
    missing = [head for head in HEADS if getattr(network.config, head) is None and getattr(other.config, head)]
    if not missing:
        raise JoinError(f"{folder} has no head that the network lacks")
    values = network.config.to_dict() | {head: getattr(other.config, head) for head in missing}
    joined = MidwayNetwork(MidwayConfig.from_dict(values))
    taken = {name: value for name, value in theirs.items() if name.split(".")[0] in missing}
    joined.load_state_dict({**ours, **taken})
    joined.image_processor = network.image_processor
    return joined.eval()


def _body(state: dict[str, Tensor]) -> set[str]:
    return {name for name in state if name.split(".")[0] not in HEADS}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
