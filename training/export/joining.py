"""Heads that were trained apart on the same frozen encoder and dynamics, in one network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.tasks.inheritance import OTHER, HeadName

HEADS: tuple[HeadName, ...] = tuple(OTHER)


class JoinError(RuntimeError):
    """Two networks cannot be joined: what their heads read differs."""


def join_heads(network: MidwayNetwork, folder: Path) -> MidwayNetwork:
    """Return a network with the heads of another one, too, that read the same encoder and, if at all, dynamics.

    Args:
        network: Whose heads win where both have one.
        folder: The other network, as `MidwayNetwork.from_pretrained` loads it.

    Raises:
        JoinError: What a head reads is not the same bit for bit, or the other has no head to give.
    """
    other = MidwayNetwork.from_pretrained(folder)
    ours, theirs = network.state_dict(), other.state_dict()
    missing = [head for head in HEADS if getattr(network.config, head) is None and getattr(other.config, head)]
    if not missing:
        raise JoinError(f"{folder} has no head that the network lacks")
    read = {part for head in missing for part in _read_by(head, getattr(other.config, head))}
    names = [name for name in ours | theirs if name.split(".")[0] in read]
    differing = sorted(name for name in names if not _same(ours.get(name), theirs.get(name)))
    if differing:
        raise JoinError(
            f"{folder} has another encoder or other dynamics ({', '.join(differing[:3])}, ...): heads are joined where "
            "what they read is the same, as start.freeze=true and start.freeze_encoder=true leave it"
        )
    values = network.config.to_dict() | {head: getattr(other.config, head) for head in missing}
    joined = MidwayNetwork(MidwayConfig.from_dict(values))
    taken = {name: value for name, value in theirs.items() if name.split(".")[0] in missing}
    joined.load_state_dict({**ours, **taken})
    joined.image_processor = network.image_processor
    return joined.eval()


def _read_by(head: HeadName, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of a network that a head reads."""
    without = config.get("features") == "encoder" if head == "segmentation_head" else not config.get("dynamics", True)
    return ("student", "teacher") if without else ("student", "teacher", "dynamics")


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)
