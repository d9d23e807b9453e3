"""Estimators by name that flow is compared with in the same run: those of the package, and two made of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from midway_hub.flow_peers import PEERS, is_peer, make_peer
from midway_hub.training.evaluation.flow.estimators import Estimator, ZeroMotion
from midway_hub.training.evaluation.flow.networks import FeatureMatching

if TYPE_CHECKING:
    from midway_hub import MidwayNetwork


def build_peers(
    names: list[str], *, network: MidwayNetwork | None = None, device: torch.device | str = "cpu"
) -> list[Estimator]:
    """Make peers by name.

    Args:
        names: `zero`, `matching`, or what `make_peer` takes; `raft_large=random` measures its time alone.
        network: Whose encoder `matching` uses.
        device: Where networks run.

    Raises:
        ImportError: A peer's package is missing.
        ValueError: An unknown name, `matching` without a network, or RAFT without weights.
    """

    def matching() -> Estimator:
        if network is None:
            raise ValueError("the peer matching compares features of a network; give a model")
        return FeatureMatching(network)

    known: dict[str, Callable[[], Estimator]] = {"zero": ZeroMotion, "matching": matching}
    peers: list[Estimator] = []
    for entry in names:
        name, _, weights = entry.partition("=")
        if is_peer(entry):
            peers.append(make_peer(entry, device=device))
        elif name not in known:
            raise ValueError(f"there is no peer {name!r}; there are: {', '.join((*known, *PEERS))}")
        elif weights:
            raise ValueError(f"the peer {name} takes no weights, got {entry!r}")
        else:
            peers.append(known[name]())
    return peers
