"""What someone who watches a run sees: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from midway_hub._console import ERR
from midway_hub._progress import Lines, duration
from midway_hub.training.timeline import Timeline

_log = logging.getLogger("midway_hub")


class Speed:
    """How fast a run is between two logs.

    Args:
        timeline: Of the run.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._begin = time.perf_counter()
        self._steps = 0

    def count(self) -> None:
        """Count a step."""
        self._steps += 1

    def take(self, waited: float) -> dict[str, float]:
        """Return the speed since the last call: `pairs_per_second`, `seconds_per_step` and `data_wait`.

        Args:
            waited: Seconds of that time in which training waited for data; `data_wait` is their share, 0 to 1.
        """
        now = time.perf_counter()
        seconds = max(now - self._begin, 1e-9)
        steps, self._steps, self._begin = self._steps, 0, now
        return {
            "pairs_per_second": self._timeline.batch_size * steps / seconds,
            "seconds_per_step": seconds / max(steps, 1),
            "data_wait": min(waited / seconds, 1.0),
        }


class ProgressReport:
    """Shows steps done, loss, pairs per second, the time left, and the share of it spent waiting for data.

    Args:
        timeline: Of the run.
        done: Steps done before.
        shown: Whether to show anything: the first process does, if asked to.
    """

    def __init__(self, timeline: Timeline, done: int, *, shown: bool) -> None:
        self._timeline = timeline
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=ERR,
            disable=not (shown and ERR.is_terminal),
        )
        self._task = self._bar.add_task("steps", total=timeline.steps, completed=done, figures="")
        self._bar.start()
        self._lines = Lines(_log.info) if shown and not ERR.is_terminal else None
        if self._lines:
            self._lines.update("steps", done, timeline.steps)

    def step(self, done: int) -> None:
        """Move the bar, or write a line if there was none for long."""
        self._bar.update(self._task, completed=done)
        if self._lines:
            self._lines.update("steps", done, self._timeline.steps)

    def figures(self, done: int, values: dict[str, float]) -> None:
        """Show the values just logged."""
        text = (
            f"loss {values.get('loss', float('nan')):.4g}, {values['pairs_per_second']:.4g} pairs/s, "
            f"{values['data_wait']:.0%} waiting for data"
        )
        self._bar.update(self._task, figures=text)
        if self._lines:
            self._lines.postpone()
            left = (self._timeline.steps - done) * values["seconds_per_step"]
            _log.info(
                "step %d of %d (epoch %d): %s, %s left",
                done,
                self._timeline.steps,
                self._timeline.epoch(done - 1),
                text,
                duration(left),
            )

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()
