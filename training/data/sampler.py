"""Which items are visited when: a pure function of the seed and the step, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from midway_hub.training.data.randomness import generator
from midway_hub.training.timeline import Timeline


class Visit(NamedTuple):
    """One opening of one item.

    Attributes:
        number: Number of the visit since the start of the run, over all processes.
        item: Number of the item in the source.
        drawn_by: Number that the frames of its pairs and their views are drawn by: its own, unless processes draw
            alike.
    """

    number: int
    item: int
    drawn_by: int


class Sampler:
    """Deals the visits of every optimizer step out to processes and micro-batches.

    The visits of a step are numbered over all processes; micro-batch k of process r takes a contiguous share of them,
    so that the same visits make up a step however many processes and micro-batches share it.

    Args:
        items: Items of the source; a pass takes each once, in a new random order.
        seed: Seed of the run.
        timeline: Gives the pairs and the visits of a step.
        rank: This process, from 0.
        world_size: All processes.
        accumulate: Micro-batches of a step.
        repeats_order: `compat.sampler_repeats_order`: every pass takes the order of the first.
        same_draws_on_every_rank: `compat.same_seed_on_every_rank`: visits at the same place on different processes have
            their frames and views drawn alike.

    Raises:
        ValueError: The visits of a step cannot be shared out, or its pairs not be shared among visits.
    """

    def __init__(
        self,
        items: int,
        *,
        seed: int,
        timeline: Timeline,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        repeats_order: bool = False,
        same_draws_on_every_rank: bool = False,
    ) -> None:
        visits = timeline.visits_per_step
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of {world_size} processes, numbered from 0")
        if visits % (world_size * accumulate):
            raise ValueError(
                f"{visits} visits a step cannot be shared by {world_size} processes x {accumulate} micro-batches; make "
                f"data.visits_per_step a multiple of {world_size * accumulate}"
            )
        if timeline.batch_size % visits:
            raise ValueError(
                f"{timeline.batch_size} pairs a step cannot be shared by {visits} visits; make it a multiple"
            )
        self.items, self.seed = items, seed
        self.pairs_per_visit = timeline.batch_size // visits
        self.share = visits // (world_size * accumulate)
        self._visits, self._accumulate = visits, accumulate
        self._rank, self._world_size = rank, world_size
        self._repeats_order, self._same_draws = repeats_order, same_draws_on_every_rank

    def micro_batch(self, number: int) -> list[Visit]:
        """Return the visits of this process's micro-batch `number`, which belongs to step `number // accumulate`."""
        step, part = divmod(number, self._accumulate)
        first = step * self._visits + (part * self._world_size + self._rank) * self.share
        first_drawn_by = number * self.share if self._same_draws else first
        return [Visit(first + k, self.item(first + k), first_drawn_by + k) for k in range(self.share)]

    def item(self, visit: int) -> int:
        """Return the item that a visit takes: every pass over the source is a permutation of it."""
        number, place = divmod(visit, self.items)
        return int(_order(self.items, self.seed, 0 if self._repeats_order else number)[place])


class MicroBatches:
    """A loader's batch sampler over a range of micro-batches."""

    def __init__(self, sampler: Sampler, first: int, last: int) -> None:
        self._sampler, self._range = sampler, range(first, last)

    def __iter__(self) -> Iterator[list[Visit]]:
        return map(self._sampler.micro_batch, self._range)

    def __len__(self) -> int:
        return len(self._range)


@lru_cache(maxsize=4)
def _order(items: int, seed: int, number: int) -> np.ndarray:
    return generator(seed, "order of a pass", number).permutation(items)
