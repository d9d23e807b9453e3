"""Long work of one user: one of a kind at a time, and it ends soon after it is told to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import nn

from midway_hub.dense.writing import Progress

Network = TypeVar("Network", bound=nn.Module)

_at_hand: ContextVar[Work | None] = ContextVar("what this thread works on", default=None)


class StoppedError(Exception):
    """Work was told to stop; nobody waits for what it would have given."""


class Work:
    """One piece of work, which whoever does it checks at every step.

    Attributes:
        on_pass: Called when the work comes to a part of a network.
    """

    def __init__(self) -> None:
        self._told = threading.Event()
        self.on_pass: dict[nn.Module, Callable[[], None]] = {}

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._told.is_set()

    def stop(self) -> None:
        """Tell it to stop; returns at once."""
        self._told.set()

    def check(self) -> None:
        """Go on, or raise `StoppedError`."""
        if self.stopped:
            raise StoppedError

    def watched(self, progress: Progress) -> Progress:
        """Return progress calls that end the work when it was told to stop."""

        def update(what: str, done: int, total: int) -> None:
            self.check()
            progress(what, done, total)

        return update


class Works:
    """What is being done for one user.

    Attributes:
        closed: Whether the user has left; nothing is begun any more.
    """

    def __init__(self) -> None:
        self.closed = False
        self._running: dict[str, Work] = {}
        self._lock = threading.Lock()

    @contextmanager
    def begin(self, kind: str) -> Iterator[Work]:
        """Do work of a kind; what is still done of that kind is stopped.

        Networks made `stoppable` stop within it, too.

        Raises:
            StoppedError: It was told to stop, whatever then went wrong or came out.
        """
        work = Work()
        with self._lock:
            older = self._running.get(kind)
            self._running[kind] = work
            if self.closed:
                work.stop()
        if older is not None:
            older.stop()
        before = _at_hand.set(work)
        try:
            work.check()
            yield work
            work.check()
        except Exception as trouble:
            if work.stopped:  # such as files that were deleted under its hands
                raise StoppedError from trouble
            raise
        finally:
            _at_hand.reset(before)
            with self._lock:
                if self._running.get(kind) is work:
                    del self._running[kind]

    def stop(self, kind: str) -> bool:
        """Tell work of a kind to stop; returns whether there was any."""
        with self._lock:
            work = self._running.get(kind)
        if work is not None:
            work.stop()
        return work is not None

    def stop_all(self, *, but: str | None = None) -> None:
        """Tell all work to stop, except that of a kind."""
        with self._lock:
            kinds = [kind for kind in self._running if kind != but]
        for kind in kinds:
            self.stop(kind)

    def close(self) -> None:
        """Stop everything, for good."""
        with self._lock:
            self.closed = True
        self.stop_all()


def stoppable(net: Network) -> Network:
    """Make a network end between any two of its layers when the work that it is used for is told to stop."""
    for module in net.modules():
        module.register_forward_pre_hook(_step)
    return net


@contextmanager
def counted(module: nn.Module, progress: Progress, what: str) -> Iterator[None]:
    """Tell how often the work at hand goes through a part of a `stoppable` network; how often it will is not known."""
    passes = itertools.count(1)
    work = _at_hand.get()
    if work is not None:
        work.on_pass[module] = lambda: progress(what, next(passes), None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if work is not None:
            del work.on_pass[module]


def _step(module: nn.Module, *_: Any) -> None:
    work = _at_hand.get()
    if work is None:
        return
    work.check()
    if tell := work.on_pass.get(module):
        tell()
