"""Synthetic worlds as a source of clips, like videos."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from midway_hub.training.data.clip import Clip, KnownFlow
from midway_hub.training.data.needs import PAIR, Frames
from midway_hub.training.data.synthetic.atlas import find_photographs
from midway_hub.training.data.synthetic.draws import FIRST_HELD_OUT
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.worlds import render_moments

VERSION = 1  # of the worlds: changed whenever a seed gives another picture


class WorldSource:
    """A `ClipSource` of worlds: every visit makes new ones. The frames of longer clips lie between those of a pair.

    Args:
        settings: What worlds are made of.
        seed: Source of another seed: other worlds.
        length: Visits that count as one pass.
        frames: What a clip is.
        flow: Whether clips say how their frames move, each to every other.

    Raises:
        ValueError: A length below 1 or a seed below 0.
    """

    def __init__(
        self,
        settings: WorldSettings,
        seed: int = 0,
        length: int = 10_000,
        *,
        frames: Frames = PAIR,
        flow: bool = False,
    ) -> None:
        if length < 1 or seed < 0:
            raise ValueError(f"a world source needs length >= 1 and seed >= 0, got length={length} and seed={seed}")
        self.settings, self.seed, self.length = settings, seed, length
        self.frames = frames
        self._flow = tuple(permutations(range(frames.count), 2)) if flow else ()

    @property
    def seconds(self) -> float:
        """Time from the first frame of a clip to its last."""
        return self.settings.seconds if self.frames.count > 1 else 0.0

    def __len__(self) -> int:
        """Returns: the visits of one pass."""
        return self.length

    def seeds(self, index: int, count: int, generator: np.random.Generator) -> list[int]:
        """Return the seeds of the worlds that `clips` renders: enough for a device to make them elsewhere.

        Args:
            index: Which item, from 0.
            count: How many worlds.
            generator: The only randomness.

        Returns:
            `count` seeds below 2^62, outside of the held-out ones.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"there are items 0 to {self.length - 1}, got {index}")
        drawn = generator.integers(0, 1 << 64, size=count, dtype=np.uint64)
        keyed = [
            np.random.SeedSequence((self.seed, index, int(number))).generate_state(1, np.uint64) for number in drawn
        ]
        return [int(key[0]) % FIRST_HELD_OUT for key in keyed]

    def clips(self, index: int, count: int, generator: np.random.Generator) -> list[Clip]:
        """Make worlds and take one clip of each; see `ClipSource`."""
        seeds, length = self.seeds(index, count, generator), self.frames.count
        rendered = render_moments(self.settings, seeds, length, flow=self._flow)
        pictures = rendered.frames.permute(0, 1, 3, 4, 2).contiguous().numpy()
        times = tuple(np.linspace(0, self.seconds, length).tolist())
        return [
            Clip(
                tuple(pictures[row]),
                f"world {seed}",
                tuple(range(length)),
                times,
                {pair: KnownFlow(flow[row].numpy(), seen[row].numpy()) for pair, (flow, seen) in rendered.flow.items()},
            )
            for row, seed in enumerate(seeds)
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Returns: what the worlds depend on."""
        folder = self.settings.textures.photographs
        photographs = find_photographs(folder) if folder else []
        return {
            "source": "synthetic world",
            "version": VERSION,
            "seed": self.seed,
            "length": self.length,
            "settings": self.settings.model_dump(mode="json"),
            "photographs": [[path.name, path.stat().st_size] for path in photographs],
        }
