"""The networks that the page can look through, and what users must know of each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import get_entry, list_models

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
    def facts(self) -> dict[str, str]:
        """Names and values that describe it."""
        count = sum(parameter.numel() for parameter in self.net.parameters()) / 1e6
        have = {
            "motion": self.net.config.dynamics,
            "flow head": self.net.has_flow_head,
            "segmentation head": self.net.has_segmentation_head,
        }
        size = f"{count:.1f} M parameters, on {self.net.device}"
        parts = ", ".join(f"{'' if there else 'no '}{part}" for part, there in have.items())
        if self.name not in list_models():
            return {"licence": "not in the registry: ask whoever made it", "size": size, "has": parts}
        entry = get_entry(self.name)
        return {"what": entry.summary, "licence": entry.licence, "by": entry.citation, "size": size, "has": parts}


class Networks:
    """Loads networks once and keeps those used last, for all who have the page open.

    Args:
        device: Where they run.
        offline: Never ask the network for weights.
    """

    def __init__(self, device: torch.device | str, *, offline: bool = False) -> None:
        self._device, self._offline = device, offline
        self._kept: OrderedDict[str, Chosen] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str) -> Chosen:
        """Load a network, or return the one that is there.

        Args:
            name: As for `MidwayNetwork.from_pretrained`.

        Raises:
            OSError: There are no such weights, or they cannot be fetched.
            ValueError: The weights do not fit.
        """
        with self._lock:
            if name not in self._kept:
                net = MidwayNetwork.from_pretrained(name, device=self._device, local_files_only=self._offline)
                self._kept[name] = Chosen(name, net)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            return self._kept[name]
