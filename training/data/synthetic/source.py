"""Synthetic worlds as a source of frame pairs, like videos."""

from __future__ import annotations

from typing import Any

import numpy as np

from midway_hub.training.data.frame_pair import FramePair
from midway_hub.training.data.synthetic.atlas import find_photographs
from midway_hub.training.data.synthetic.draws import FIRST_HELD_OUT
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.worlds import render_frames

VERSION = 1  # of the worlds: changed whenever a seed gives another picture


class WorldSource:
    """A `PairSource` of worlds: every visit makes new ones.

    Args:
        settings: What worlds are made of.
        seed: Source of another seed: other worlds.
        length: Visits that count as one pass.

    Raises:
        ValueError: A length below 1 or a seed below 0.
    """

    def __init__(self, settings: WorldSettings, seed: int = 0, length: int = 10_000) -> None:
        if length < 1 or seed < 0:
            raise ValueError(f"a world source needs length >= 1 and seed >= 0, got length={length} and seed={seed}")
        self.settings, self.seed, self.length = settings, seed, length

    def __len__(self) -> int:
        """Returns: the visits of one pass."""
        return self.length

    def seeds(self, index: int, count: int, generator: np.random.Generator) -> list[int]:
        """Return the seeds of the worlds that `pairs` renders: enough for a device to make them elsewhere.

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

    def pairs(self, index: int, count: int, generator: np.random.Generator) -> list[FramePair]:
        """Make worlds and take one frame pair of each; see `PairSource`."""
        seeds = self.seeds(index, count, generator)
        first, second = (frames.permute(0, 2, 3, 1).numpy() for frames in render_frames(self.settings, seeds))
        return [
            FramePair(np.ascontiguousarray(x), np.ascontiguousarray(y), f"world {seed}", (0, 1), self.settings.seconds)
            for x, y, seed in zip(first, second, seeds, strict=True)
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
