"""How far a long job is, where there is no terminal to draw a bar on: a line soon, then ever more seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MB = 10**6
FIRST, LONGEST = 2.0, 60.0
"""Seconds until the first line, and the most between two; in between, the job's age doubles from line to line."""


class Lines:
    """Tells how far a job is.

    Args:
        tell: Called with each line.
        clock: Seconds that only grow.
    """

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._start = clock()
        self._due = self._start + FIRST
        self._step: _Step | None = None
        self._told = False
        self._lock = threading.RLock()

    def update(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Note how far a step of the job is, and tell if it is time to.

        Args:
            what: The step.
            done: How much of it is done.
            total: Of how much; 0 where that is not known.
            detail: What is at hand, for the end of the line.
        """
        with self._lock:
            if self._step is None or self._step.what != what:
                self._step = _Step(what, done, self._clock())
            self._step.done, self._step.total, self._step.detail = done, total, detail
            self.tick()

    def tick(self) -> None:
        """Tell if it is time to."""
        with self._lock:
            if self._step is not None and self._clock() >= self._due:
                self._say(self._step)

    def postpone(self) -> None:
        """Take it that somebody else has just told how far the job is."""
        now = self._clock()
        self._due = now + min(max(now - self._start, FIRST), LONGEST)

    def close(self) -> None:
        """Tell how far the job came, if it was told before how far it is."""
        with self._lock:
            if self._told and self._step is not None:
                self._say(self._step, "ended")

    def _say(self, step: _Step, state: str = "going on") -> None:
        now = self._clock()
        self.postpone()
        self._told = True
        self._tell(f"{step.line(now)}, {state} after {duration(now - self._start)}")


class _Step:
    def __init__(self, what: str, done: int, now: float) -> None:
        self.what, self.done, self.total, self.detail = what, done, 0, ""
        self._first, self._since = done, now

    def line(self, now: float) -> str:
        parts = [f"{self.what}: {self.done}" + (f" of {self.total}" if self.total else "")]
        made, seconds = self.done - self._first, now - self._since
        if made > 0 and seconds > 0 and self.done != self.total:
            parts.append(speed(made / seconds))
            if self.total:
                parts.append(f"{duration((self.total - self.done) * seconds / made)} left")
        return ", ".join(parts) + (f" ({self.detail})" if self.detail else "")


@contextmanager
def told(tell: Callable[[str], None]) -> Iterator[Lines]:
    """Tell how far a job is, also while it does not report: a thread looks at the clock."""
    lines, ended = Lines(tell), threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            lines.tick()

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join()
        lines.close()


def speed(steps: float) -> str:
    """Return how fast steps are made: `12.5 a second`, or below one a second `2.5 s each`."""
    return f"{steps:.3g} a second" if steps > 1 else f"{1 / steps:.3g} s each"


def duration(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are any: `2:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_watcher: ContextVar[Callable[..., None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_downloads(update: Callable[..., None]) -> Iterator[None]:
    """Have `update` called, as `Lines.update` is, with what is downloaded in this block: megabytes, and of how many."""
    token = _watcher.set(update)
    try:
        yield
    finally:
        _watcher.reset(token)


def download_watcher(name: str) -> Callable[[int, int], None] | None:
    """Return what to call with the bytes of a file that arrived, and all (0: not known); None: nobody asked."""
    update = _watcher.get()
    return None if update is None else lambda done, total: update(f"downloading {name}, MB", done // MB, total // MB)
