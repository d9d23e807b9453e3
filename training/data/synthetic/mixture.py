"""Worlds of several families in one batch, such as small motions and large ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from pydantic import Field

from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.worlds import WorldPairs, render_pairs
from midway_hub.training.overrides import merged
from midway_hub.training.settings import Settings


class WorldShare(Settings):
    """One family of a mixture."""

    weight: float = Field(1.0, gt=0)
    """How often worlds are of it, against the others' weights."""

    world: dict[str, Any] = Field(default_factory=dict)
    """What differs from the base, such as {motion: {displacement: [0.2, 0.5]}}; frames have the base's size."""


@dataclass(frozen=True)
class Mixture:
    """Families of worlds and how often each is drawn; which one a world is of follows from its seed alone."""

    families: tuple[WorldSettings, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, base: WorldSettings, shares: Sequence[WorldShare] = ()) -> Mixture:
        """Lay each share's differences over a base; without shares there is the base alone.

        Raises:
            ValueError: Differences that make no world, or frames of another size.
        """
        if not shares:
            return cls((base,), (1.0,))
        values = base.model_dump(mode="json")
        families = tuple(WorldSettings.model_validate(merged(values, share.world)) for share in shares)
        for family in families:
            if family.size != base.size:
                raise ValueError(f"worlds of a mixture have one size, {base.size}, got {family.size}")
        return cls(families, tuple(share.weight for share in shares))

    def family(self, seeds: Sequence[int]) -> np.ndarray:
        """Return the number of each world's family."""
        if len(self.families) == 1:
            return np.zeros(len(seeds), dtype=int)
        return Draws(seeds, 1, block=2).which(self.weights)

    def render(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> WorldPairs:
        """Render the pairs of worlds, in their order; see `render_pairs`."""
        of = self.family(seeds)
        order, parts = [], []
        for number in np.unique(of):
            rows = np.flatnonzero(of == number)
            order.append(rows)
            parts.append(render_pairs(self.families[number], [seeds[int(row)] for row in rows], device=device))
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)
        joined = {item.name: torch.cat([getattr(part, item.name) for part in parts]) for item in fields(WorldPairs)}
        return WorldPairs(**{name: values[back] for name, values in joined.items()})
