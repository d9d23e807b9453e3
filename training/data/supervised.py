"""Batches of labelled examples for the engine: a pure function of the seed and the step, read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from midway_hub.processing import IMAGENET, Normalisation
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.quarantine import Quarantine, Rejection, TooManyRejectedError, exceeds
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.reading import read_micro_batches
from midway_hub.training.data.sampler import Sampler, Visit
from midway_hub.training.data.substitutes import turns
from midway_hub.training.data.views import normalise
from midway_hub.training.engine.protocol import Batch
from midway_hub.training.settings import Settings
from midway_hub.training.timeline import Timeline

Example = dict[str, np.ndarray]


class Examples(Protocol):
    """Labelled examples by number, augmented: arrays of equal shapes, whichever the number."""

    def __len__(self) -> int: ...

    def example(self, index: int, generator: np.random.Generator) -> Example:
        """Read an example and augment it.

        Args:
            index: Which one, from 0.
            generator: The only randomness.

        Returns:
            Arrays by name. Those of uint8 and (3, H, W) are frames, normalised on the device.

        Raises:
            SampleError: It cannot be read.
        """
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the data, JSON-able."""
        ...


class LoadingSettings(Settings):
    """How examples are read."""

    batch_size: int = Field(8, ge=1)
    """Examples of one optimizer step, over all processes and accumulated micro-batches."""

    epoch_examples: int | None = Field(None, ge=1)
    """Examples that count as one epoch; by default all of them."""

    workers: int = Field(2, ge=0)
    """Reading processes of each training process; 0 reads in the training process itself."""

    prefetch: int = Field(2, ge=1)
    """Micro-batches that each reading process prepares ahead."""

    max_rejected: float = Field(0.01, ge=0, le=1)
    """Share of the examples that may turn out unreadable before the run stops."""


class SupervisedBatches:
    """Micro-batches of examples, in a new random order in every pass.

    The turn of an example that cannot be read goes to another one, and the reason is kept.

    Args:
        examples: What is read.
        loading: How.
        seed: Seed of the run.
        timeline: Gives the examples of a step.
        rank: This process, from 0.
        world_size: All processes.
        accumulate: Micro-batches of a step.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.
        normalisation: What frames are normalised by.

    Raises:
        ValueError: The examples of a step cannot be shared by the processes and micro-batches.
    """

    def __init__(
        self,
        examples: Examples,
        loading: LoadingSettings,
        *,
        seed: int,
        timeline: Timeline,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        pin_memory: bool = False,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        self.examples, self._loading, self._pin_memory = examples, loading, pin_memory
        self._normalisation = normalisation
        self._sampler = Sampler(
            len(examples), seed=seed, timeline=timeline, rank=rank, world_size=world_size, accumulate=accumulate
        )
        self._dataset = _Turns(examples, seed, loading.max_rejected)
        self._quarantine = Quarantine(len(examples), loading.max_rejected)

    def iterate(self, first: int, last: int) -> Iterator[Batch]:
        """Yield this process's micro-batches `first`, ..., `last - 1`; see the engine's protocol.

        Raises:
            TooManyRejectedError: More of the data is unreadable than `data.max_rejected` allows.
            ReadingProcessDiedError: A worker process died.
        """
        batches = read_micro_batches(
            self._dataset,
            self._sampler,
            first,
            last,
            join=_join,
            workers=self._loading.workers,
            prefetch=self._loading.prefetch,
            pin_memory=self._pin_memory,
        )
        for batch in batches:
            self._quarantine.add(batch["rejected"])
            if batch["arrays"] is None:
                raise TooManyRejectedError(f"no example of the data can be read:\n{self._quarantine.listed()}")
            yield batch

    def finish(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the arrays on `device`, frames (B, 3, H, W) normalised."""
        moved = {name: array.to(device, non_blocking=True) for name, array in batch["arrays"].items()}
        return {name: normalise(t, self._normalisation) if is_frames(t) else t for name, t in moved.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return dict(self.examples.fingerprint())

    def rejected(self) -> list[dict[str, str]]:
        """Return `file` and `reason` of what could not be read so far."""
        return self._quarantine.records()


def is_frames(array: Tensor) -> bool:
    """Return whether these are grey levels of frames, (B, 3, H, W)."""
    return array.dtype == torch.uint8 and array.ndim == 4 and array.shape[1] == 3


class _Turns(Dataset[dict[str, Any]]):
    def __init__(self, examples: Examples, seed: int, max_rejected: float) -> None:
        self._examples, self._seed, self._max_rejected = examples, seed, max_rejected
        self._unreadable: dict[int, SampleError] = {}

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        rejections: dict[int, Rejection] = {}
        for item in turns(visit.item, len(self._examples), seed=self._seed, number=visit.number):
            try:
                return {"arrays": self._read(item, visit.number), "rejected": [*rejections.values()]}
            except SampleError as error:
                self._unreadable[item] = error.with_traceback(None)
                rejections[item] = Rejection(item, error.file, error.reason)
                if exceeds(len(rejections), len(self._examples), self._max_rejected):
                    break
        return {"arrays": None, "rejected": [*rejections.values()]}

    def _read(self, item: int, number: int) -> Example:
        if item in self._unreadable:
            raise self._unreadable[item]
        return self._examples.example(item, generator(self._seed, "example", number))


def _join(read: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rejected = [rejection for one in read for rejection in one["rejected"]]
    if any(one["arrays"] is None for one in read):
        return {"arrays": None, "rejected": rejected}
    arrays = {name: torch.from_numpy(np.stack([one["arrays"][name] for one in read])) for name in read[0]["arrays"]}
    return {"arrays": arrays, "rejected": rejected}
