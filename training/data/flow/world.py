"""Synthetic worlds as a flow data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midway_hub.training.data.flow.sample import FlowSample
from midway_hub.training.data.synthetic import WorldSettings, WorldSource, render_pairs


class WorldFlow:
    """A `FlowDataset` of worlds, each made when it is asked for.

    Args:
        settings: What worlds are made of.
        seeds: One per pair; `held_out_seeds` gives those that no training sees.

    Raises:
        ValueError: There are no seeds.
    """

    name = "world"
    sparse = False

    def __init__(self, settings: WorldSettings, seeds: Sequence[int]) -> None:
        if not len(seeds):
            raise ValueError("there are no worlds without seeds; give at least one seed")
        self.settings, self.seeds = settings, seeds

    def __len__(self) -> int:
        """Returns: the number of seeds."""
        return len(self.seeds)

    def __getitem__(self, index: int) -> FlowSample:
        """Render a pair; see `FlowDataset`. The flow is known everywhere, at occluded pixels too."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are pairs 0 to {len(self) - 1}, got {index}")
        seed = int(self.seeds[index])
        pairs = render_pairs(self.settings, [seed])
        first, second, flow = (
            np.ascontiguousarray(part[0].permute(1, 2, 0).numpy()) for part in (pairs.first, pairs.second, pairs.flow)
        )
        occluded = pairs.occluded[0].numpy()
        return FlowSample(first, second, flow, np.ones_like(occluded), name=f"world {seed}", occluded=occluded)

    def missing(self) -> list[str]:
        """Return nothing: there are no files."""
        return []

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what the worlds depend on."""
        made_of = WorldSource(self.settings, length=len(self)).fingerprint()
        return {**made_of, "name": self.name, "pairs": len(self), "seeds": _brief(self.seeds)}


def _brief(seeds: Sequence[int]) -> list[int] | dict[str, int]:
    if isinstance(seeds, range):
        return {"start": seeds.start, "stop": seeds.stop, "step": seeds.step}
    return [int(seed) for seed in seeds]
