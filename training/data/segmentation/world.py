"""Synthetic worlds as labelled pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from midway_hub.training.data.segmentation.sample import LabelledImage
from midway_hub.training.data.synthetic import CLASSES, PALETTE, WorldSettings, render_pairs
from midway_hub.training.data.synthetic.atlas import find_photographs
from midway_hub.training.data.synthetic.source import VERSION


class WorldSegmentation:
    """A `SegmentationDataset` of synthetic worlds: the first frame of each and what it shows.

    Args:
        settings: What worlds are made of.
        seeds: One per picture; `held_out_seeds` gives those that no training run sees.

    Raises:
        ValueError: There are no seeds.
    """

    name = "world"
    classes = CLASSES
    palette = PALETTE

    def __init__(self, settings: WorldSettings, seeds: Sequence[int]) -> None:
        if not len(seeds):
            raise ValueError("there are no worlds without seeds; give at least one seed")
        self.settings, self.seeds = settings, seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> LabelledImage:
        seed = self.seeds[index]
        made = render_pairs(self.settings, [seed])
        image = np.ascontiguousarray(made.first[0].permute(1, 2, 0).numpy())
        return LabelledImage(image, made.labels[0].numpy(), f"world {seed}")

    def missing(self) -> list[str]:
        return []

    def fingerprint(self) -> dict[str, Any]:
        folder = self.settings.textures.photographs
        photographs = find_photographs(folder) if folder else []
        return {
            "name": self.name,
            "pictures": len(self.seeds),
            "seeds": hashlib.sha256(repr([int(seed) for seed in self.seeds]).encode()).hexdigest(),
            "settings": self.settings.model_dump(mode="json"),
            "version": VERSION,
            "photographs": [[path.name, path.stat().st_size] for path in photographs],
        }
