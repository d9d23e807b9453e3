"""The networks that the page can look through, and what users must know of each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from midway_hub.app.work import stoppable
from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import DEFAULT_MODEL, get_entry, list_models

KEPT = 2


@dataclass(frozen=True)
class Chosen:
    """A network and what it is called."""

    name: str
    net: MidwayNetwork

    @property
    def warning(self) -> str | None:
        """What users must know before they look, if anything."""
        if self.name not in list_models() or get_entry(self.name).trained:
            return None
        return (
            "This model is UNTRAINED: its weights are random numbers. The page shows that everything runs, not what a "
            "trained network sees. Heatmaps stay near the touched patch, and colours show position and brightness."
        )

    @property
    def heads(self) -> dict[str, bool]:
        """Which heads it has, by what they do."""
        return {"flow": self.net.has_flow_head, "segmentation": self.net.has_segmentation_head}

    def lacks(self, head: str) -> str:
        """Say that it has no head of a kind, and which models of the list have one; nothing where it has."""
        if self.heads[head]:
            return ""
        having = ", ".join(list_models(task=head)) or "none of the list"
        return f"{self.name} has no {head} head. Models that have one: {having}, and what you finetune yourself."

    @property
    def facts(self) -> dict[str, str]:
        """Names and values that describe it."""
        count = sum(parameter.numel() for parameter in self.net.parameters()) / 1e6
        have = {"motion": self.net.config.dynamics, **{f"{head} head": there for head, there in self.heads.items()}}
        size = f"{count:.1f} M parameters, on {self.net.device}"
        parts = ", ".join(f"{'' if there else 'no '}{part}" for part, there in have.items())
        if self.name not in list_models():
            return {"licence": "not in the registry: ask whoever made it", "size": size, "has": parts}
        entry = get_entry(self.name)
        return {"what": entry.summary, "licence": entry.licence, "by": entry.citation, "size": size, "has": parts}


class Networks:
    """Loads networks once and keeps those used last, for all who have the page open; they stop when work does.

    Args:
        device: Where they run.
        offline: Never ask the network for weights.
        always: Name of the one that is kept whatever else is used: the one that users start with.
    """

    def __init__(self, device: torch.device | str, *, offline: bool = False, always: str = DEFAULT_MODEL) -> None:
        self._device, self._offline, self._always = device, offline, always
        self._kept: OrderedDict[str, Chosen] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def load(self, name: str) -> Chosen:
        """Load a network, or return the one that is there, for which nobody waits who loads another.

        Args:
            name: As for `MidwayNetwork.from_pretrained`.

        Raises:
            OSError: There are no such weights, or they cannot be fetched.
            ValueError: The weights do not fit.
        """
        if chosen := self._find(name):
            return chosen
        with self._lock:
            alone = self._loading.setdefault(name, threading.Lock())
        with alone:
            try:
                return self._find(name) or self._keep(self._load(name))
            finally:
                with self._lock:
                    self._loading.pop(name, None)

    def _find(self, name: str) -> Chosen | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def _load(self, name: str) -> Chosen:
        net = MidwayNetwork.from_pretrained(name, device=self._device, local_files_only=self._offline)
        return Chosen(name, stoppable(net))

    def _keep(self, chosen: Chosen) -> Chosen:
        with self._lock:
            self._kept[chosen.name] = chosen
            others = [name for name in self._kept if name != self._always]
            for name in others[: max(0, len(others) - KEPT)]:
                del self._kept[name]
        return chosen
