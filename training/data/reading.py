"""A data set read by worker processes, a micro-batch at a time: what every kind of batches shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from midway_hub.training.data.sampler import MicroBatches, Sampler
from midway_hub.training.data.worker import start_worker


class ReadingProcessDiedError(RuntimeError):
    """A process that reads the data died, usually because memory ran out."""


def read_micro_batches(
    dataset: Dataset[Any],
    sampler: Sampler,
    first: int,
    last: int,
    *,
    join: Callable[[list[Any]], dict[str, Any]],
    workers: int,
    prefetch: int,
    start_method: str | None = None,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield micro-batches `first`, ..., `last - 1`; workers start with the first one and end with the iteration.

    Args:
        dataset: Maps a `Visit` to what was read.
        sampler: Says which visits make up a micro-batch.
        first: Number of the first micro-batch.
        last: Number after the last one.
        join: Makes a micro-batch of what its visits gave.
        workers: Reading processes; 0 reads in this process.
        prefetch: Micro-batches that each reading process prepares ahead.
        start_method: How reading processes start; default: the platform's own way.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.

    Raises:
        ReadingProcessDiedError: A worker process died.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=MicroBatches(sampler, first, last),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=join,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        # Its own generator: the loader seeds its workers from it, and would else take from the global one.
        generator=torch.Generator(),
        multiprocessing_context=start_method if workers else None,
        prefetch_factor=prefetch if workers else None,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise ReadingProcessDiedError(
            f"a process that reads the data died ({error}). Usually memory ran out: lower data.workers "
            f"({workers}) or data.prefetch ({prefetch}), or raise the limit of /dev/shm"
        ) from error
