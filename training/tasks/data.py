"""The `data` section of a finetuning run: labelled examples, from data sets or from synthetic worlds."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from midway_hub.training.data.supervised import Examples, LoadingSettings, SupervisedBatches
from midway_hub.training.data.synthetic import WorldSettings
from midway_hub.training.data.synthetic.examples import WorldBatches, WorldExamples
from midway_hub.training.data.synthetic.mixture import Mixture, WorldShare

WORLDS_PER_EPOCH = 10_000
PICTURES = 3


class TaskData(LoadingSettings):
    """What the data sections of the tasks share."""

    learned: ClassVar[Literal["flow", "segmentation"]]

    source: Literal["world", "files"] = "world"
    """`world`: synthetic worlds made on the fly; `files`: published data sets."""

    world: WorldSettings = WorldSettings()
    """The synthetic world."""

    mixture: tuple[WorldShare, ...] = ()
    """Families that training's worlds are of, each by what differs from `world`; none: `world` alone. What is measured
    while training is `world`."""

    render: Literal["cpu", "device"] = "cpu"
    """Where worlds are made: by the reading processes, or a batch at a time on the training device."""

    @model_validator(mode="after")
    def _mixture_makes_worlds(self) -> Self:
        Mixture.of(self.world, self.mixture)
        return self

    def examples(self) -> Examples:
        """Open the data.

        Raises:
            FileNotFoundError: It is not there, or files of it are missing.
        """
        if self.source == "world":
            length = self.epoch_examples or WORLDS_PER_EPOCH
            return WorldExamples(self.world, self.learned, length=length, shares=self.mixture)
        return self._examples_of_files()

    def _examples_of_files(self) -> Examples:
        raise NotImplementedError

    def batches(
        self, examples: Examples, *, pin_memory: bool = False, **shares: Any
    ) -> SupervisedBatches | WorldBatches:
        """Return what feeds the engine.

        Args:
            examples: From `examples()`.
            pin_memory: Prepare micro-batches for asynchronous copies to a GPU.
            **shares: seed, timeline, rank, world_size, accumulate, normalisation.
        """
        if isinstance(examples, WorldExamples) and self.render == "device":
            return WorldBatches(examples, **shares)
        return SupervisedBatches(examples, self, pin_memory=pin_memory, **shares)

    def described(self) -> str:
        """Return where the number of examples comes from, for the plan."""
        return "data.epoch_examples, or 10,000 worlds" if self.source == "world" else "all of the data sets"


def channels_first(array: np.ndarray) -> np.ndarray:
    """Return (H, W, C) as contiguous (C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))
