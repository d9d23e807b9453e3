"""Micro-batches of views for the engine: sampled by number, read by worker processes, finished on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from midway_hub.training.compat import Oddities
from midway_hub.training.data.clip import ClipSource
from midway_hub.training.data.dataset import VisitDataset, WorldDataset, join
from midway_hub.training.data.flow_provider import WORLD, FlowAsked
from midway_hub.training.data.needs import Needs
from midway_hub.training.data.quarantine import Quarantine, TooManyRejectedError
from midway_hub.training.data.reading import read_micro_batches
from midway_hub.training.data.sampler import Sampler
from midway_hub.training.data.settings import DataSettings
from midway_hub.training.data.synthetic import WorldSource
from midway_hub.training.data.views import normalise_views
from midway_hub.training.engine.protocol import Batch
from midway_hub.training.timeline import Timeline


class ClipBatches:
    """The engine's `Batches`: every micro-batch is a pure function of its number, whoever reads it.

    Args:
        source: Where clips come from.
        data: How they are read.
        needs: What the method asks for.
        seed: Seed of the run.
        timeline: Clips and visits of a step.
        rank: This process, from 0.
        world_size: All processes.
        accumulate: Micro-batches of a step.
        compat: `sampler_repeats_order` and `same_seed_on_every_rank` matter here.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.
        device: Where a flow provider runs that `finish` asks; one in a reading process runs on the CPU.

    Raises:
        ImportError: The flow provider needs a package that is missing.
        ValueError: The method needs flow that nobody tells, or the visits of a step cannot be shared by the processes
            and micro-batches.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        data: DataSettings,
        needs: Needs,
        seed: int,
        timeline: Timeline,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        compat: Oddities | None = None,
        pin_memory: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        compat = compat or Oddities()
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
        per_visit, here = self._sampler.pairs_per_visit, data.augment == "cpu"
        self._flow = FlowAsked.by(needs, data.flow, "cpu" if here else device)
        if self._flow is not None and not (data.flow.provider == WORLD and isinstance(source, WorldSource)):
            self._flow.provider  # noqa: B018  # opened now, so that what is missing is said before a run starts
        self._dataset: VisitDataset | WorldDataset
        if isinstance(source, WorldSource) and not here and data.flow.provider == WORLD:
            self._dataset = WorldDataset(source, needs=needs, seed=seed, clips_per_visit=per_visit)
        else:
            self._dataset = VisitDataset(
                source,
                needs=needs,
                seed=seed,
                clips_per_visit=per_visit,
                augment=data.augment,
                max_rejected=data.max_rejected,
                flow=self._flow,
            )
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
                raise TooManyRejectedError(f"no item of the data gives the clips of micro-batch {number}:\n{listed}")
            yield batch

    def finish(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the views by group, (B, V, 3, h, w) float32 on `device`, normalised, and what goes with them."""
        return normalise_views(batch["payload"].views_on(device, self._flow))

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data and how clips are taken from it."""
        taken: dict[str, Any] = {"gap": str(self._data.gap), "pairs_per_visit": self._sampler.pairs_per_visit}
        if self._flow is not None:
            taken["flow"] = self._flow.fingerprint()
        return {**self.source.fingerprint(), **taken}

    def rejected(self) -> list[dict[str, str]]:
        """Return `file` and `reason` of what could not be read so far."""
        return self._quarantine.records()
