"""Micro-batches of views for the engine: sampled by number, read by worker processes, finished on the device."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from midway_hub.training.compat import Compat
from midway_hub.training.data.dataset import VisitDataset, WorldDataset, join
from midway_hub.training.data.frame_pair import PairSource
from midway_hub.training.data.quarantine import Quarantine, TooManyRejectedError
from midway_hub.training.data.reading import read_micro_batches
from midway_hub.training.data.sampler import Sampler
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.data.synthetic import WorldSource
from midway_hub.training.data.views import ViewSettings, normalise_views
from midway_hub.training.engine.protocol import Batch
from midway_hub.training.timeline import Timeline


class PairBatches:
    """The engine's `Batches`: every micro-batch is a pure function of its number, whoever reads it.

    Args:
        source: Where pairs come from.
        data: How they are read.
        views: Sizes and ranges of the views.
        groups: Which groups of views to make: what the method wants.
        seed: Seed of the run.
        timeline: Pairs and visits of a step.
        rank: This process, from 0.
        world_size: All processes.
        accumulate: Micro-batches of a step.
        compat: `sampler_repeats_order` and `same_seed_on_every_rank` matter here.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.

    Raises:
        ValueError: The visits of a step cannot be shared by the processes and micro-batches.
    """

    def __init__(
        self,
        source: PairSource,
        *,
        data: DataSettings,
        views: ViewSettings,
        groups: Collection[str],
        seed: int,
        timeline: Timeline,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        compat: Compat | None = None,
        pin_memory: bool = False,
    ) -> None:
        compat = compat or Compat()
        self.source, self._data, self._pin_memory = source, data, pin_memory
        self._sampler = Sampler(
            len(source),
            seed=seed,
            timeline=timeline,
            rank=rank,
            world_size=world_size,
            accumulate=accumulate,
            repeats_order=compat.sampler_repeats_order,
            same_draws_on_every_rank=compat.same_seed_on_every_rank,
        )
        what = {"views": views, "groups": groups, "seed": seed, "pairs_per_visit": self._sampler.pairs_per_visit}
        self._dataset: VisitDataset | WorldDataset
        if isinstance(source, WorldSource) and data.augment == "device":
            self._dataset = WorldDataset(source, **what)
        else:
            self._dataset = VisitDataset(source, **what, augment=data.augment, max_rejected=data.max_rejected)
        self._quarantine = Quarantine(len(source), data.max_rejected)

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """Yield this process's micro-batches `first`, ..., `last - 1`; see the engine's protocol.

        Worker processes start with the first one and end with the iteration.

        Raises:
            TooManyRejectedError: More of the data is unreadable than `data.max_rejected` allows.
            ReadingProcessDiedError: A worker process died.
        """
        batches = read_micro_batches(
            self._dataset,
            self._sampler,
            first,
            last,
            join=join,
            workers=self._data.workers,
            prefetch=self._data.prefetch,
            start_method=self._data.start_method,
            pin_memory=self._pin_memory,
        )
        for number, batch in enumerate(batches, first):
            self._quarantine.add(batch["rejected"])
            if batch["payload"] is None:
                listed = self._quarantine.listed()
                raise TooManyRejectedError(f"no item of the data gives the pairs of micro-batch {number}:\n{listed}")
            yield batch

    def finish(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the views by group, (B, V, 3, S, S) float32 on `device`, normalised."""
        return normalise_views(batch["payload"].views_on(device))

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data and how pairs are taken from it."""
        taken = {"gap": str(self._data.gap), "pairs_per_visit": self._sampler.pairs_per_visit}
        return {**self.source.fingerprint(), **taken}

    def rejected(self) -> list[dict[str, str]]:
        """Return `file` and `reason` of what could not be read so far."""
        return self._quarantine.records()
