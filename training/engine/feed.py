"""Micro-batches in order, with the time that training waited for them."""

from __future__ import annotations

import time

from midway_hub.training.engine.protocol import Batch, Batches
from midway_hub.training.engine.random_state import preserved


class Feed:
    """The micro-batches `first`, ..., `last - 1` of this process.

    Reading them draws nothing from the run's random generators (a DataLoader's iterator does when it starts), so that
    a run which starts in the middle goes on as if it had not stopped.
    """

    def __init__(self, batches: Batches, first: int, last: int) -> None:
        self._iterator = iter(batches.iterate(first, last))
        self._next = first
        self._last = last
        self.waited = 0.0

    def next(self) -> Batch:
        """Return the next micro-batch.

        Raises:
            RuntimeError: The data ended early.
        """
        begin = time.perf_counter()
        try:
            with preserved():
                batch = next(self._iterator)
        except StopIteration:
            raise RuntimeError(
                f"the data ended before micro-batch {self._next}; {self._last} were asked for: "
                "`iterate(first, last)` has to yield last - first of them, going through the files as often as it takes"
            ) from None
        self._next += 1
        self.waited += time.perf_counter() - begin
        return batch

    def take_waited(self) -> float:
        """Return the seconds waited since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def close(self) -> None:
        """Let the data's workers go."""
        close = getattr(self._iterator, "close", None)
        if close:
            close()
