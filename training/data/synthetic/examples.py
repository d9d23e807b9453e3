"""Synthetic worlds as labelled examples: made by reading processes, or a batch at a time on the training device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from midway_hub.processing import IMAGENET, Normalisation
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.sampler import Sampler
from midway_hub.training.data.synthetic.draws import FIRST_HELD_OUT
from midway_hub.training.data.synthetic.mixture import Mixture, WorldShare
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.source import WorldSource
from midway_hub.training.data.synthetic.worlds import WorldPairs
from midway_hub.training.data.views import normalise
from midway_hub.training.engine.protocol import Batch
from midway_hub.training.timeline import Timeline

Task = Literal["flow", "segmentation"]


def labelled(worlds: WorldPairs, task: Task) -> dict[str, Tensor]:
    """Return what a task learns from: frames in grey levels, and the truth.

    Flow: `source` and `target` (B, 3, H, W), `flow` (B, 2, H, W), `valid` and `occluded` (B, H, W); points that become
    occluded are valid too, as in the published data sets. Segmentation: `image` (B, 3, H, W) and `labels` (B, H, W).
    """
    if task == "segmentation":
        return {"image": worlds.first, "labels": worlds.labels}
    return {
        "source": worlds.first,
        "target": worlds.second,
        "flow": worlds.flow,
        "valid": torch.isfinite(worlds.flow).all(dim=1),
        "occluded": worlds.occluded,
    }


def world_seed(draw: np.random.Generator) -> int:
    """Draw the seed of a world that is not one of the held-out ones."""
    return int(draw.integers(0, FIRST_HELD_OUT))


class WorldExamples:
    """Examples for `SupervisedBatches`: every turn is a new world, rendered where it is read.

    Args:
        settings: What worlds are made of.
        task: What is learned from them.
        length: Worlds that count as one pass.
        shares: Families that worlds are of, by what differs from `settings`; default: `settings` alone.

    Raises:
        ValueError: A share that makes no world.
    """

    def __init__(
        self, settings: WorldSettings, task: Task, *, length: int = 10_000, shares: Sequence[WorldShare] = ()
    ) -> None:
        self.settings, self.task, self.length, self._shares = settings, task, length, shares
        self.mixture = Mixture.of(settings, shares)

    def __len__(self) -> int:
        return self.length

    def example(self, index: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Render a world; see `Examples`."""
        worlds = self.mixture.render([world_seed(generator)])
        return {name: values[0].numpy() for name, values in labelled(worlds, self.task).items()}

    def fingerprint(self) -> dict[str, Any]:
        """Return what the worlds depend on."""
        found = WorldSource(self.settings, length=self.length).fingerprint()
        if not self._shares:
            return found
        pictures = [WorldSource(family).fingerprint()["photographs"] for family in self.mixture.families]
        shares = [share.model_dump(mode="json") for share in self._shares]
        return {**found, "mixture": shares, "mixture_photographs": pictures}


class WorldBatches:
    """The same examples, rendered a micro-batch at a time on the training device: `Batches` for the engine.

    Args:
        examples: What is rendered.
        seed: Seed of the run.
        timeline: Worlds of a step.
        rank: This process, from 0.
        world_size: All processes.
        accumulate: Micro-batches of a step.
        normalisation: What frames are normalised by.

    Raises:
        ValueError: The worlds of a step cannot be shared by the processes and micro-batches.
    """

    def __init__(
        self,
        examples: WorldExamples,
        *,
        seed: int,
        timeline: Timeline,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        self.examples, self._seed, self._normalisation = examples, seed, normalisation
        self._sampler = Sampler(
            len(examples), seed=seed, timeline=timeline, rank=rank, world_size=world_size, accumulate=accumulate
        )

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the seeds of this process's micro-batches."""
        for number in range(first, last):
            visits = self._sampler.micro_batch(number)
            yield {"seeds": [world_seed(generator(self._seed, "example", visit.number)) for visit in visits]}

    def finish(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Render the worlds on `device`, frames normalised."""
        made = labelled(self.examples.mixture.render(batch["seeds"], device=device), self.examples.task)
        frames = ("source", "target", "image")
        return {name: normalise(t, self._normalisation) if name in frames else t for name, t in made.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return self.examples.fingerprint()

    def rejected(self) -> list[dict[str, str]]:
        """Return nothing: worlds can always be made."""
        return []
