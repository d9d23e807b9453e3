"""What the first process writes and shows while a run goes on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping

import torch

from midway_hub.training.engine.collapse import CollapseWatch
from midway_hub.training.engine.metrics import JsonLines, MetricWriter, extra_writers
from midway_hub.training.engine.progress import ProgressReport, Speed
from midway_hub.training.engine.run_directory import RunDirectory
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.timeline import Timeline

_log = logging.getLogger("midway_hub")


class RunLog:
    """`metrics.jsonl` and its kin, the bar, and the heartbeat.

    Args:
        directory: Of the run, open.
        settings: Which writers, how often a heartbeat.
        timeline: Of the run.
        done: Optimizer steps done before.
        collapse: Sees every mean that is logged.
    """

    def __init__(
        self, directory: RunDirectory, settings: EngineSettings, timeline: Timeline, done: int, collapse: CollapseWatch
    ) -> None:
        self._record = directory.record
        self._heartbeat_seconds = settings.heartbeat_seconds
        self._timeline = timeline
        self._collapse = collapse
        self._lines = JsonLines(directory.metrics)
        self._writers: list[MetricWriter] = [
            self._lines,
            *extra_writers(
                settings, directory.path, run_id=self._record.facts["id"], step=done, config=directory.config
            ),
        ]
        self._speed = Speed(timeline)
        self._progress = ProgressReport(timeline, done, shown=settings.progress)

    def step(self, done: int) -> None:
        """Note that a step was done."""
        self._speed.count()
        self._progress.step(done)
        with contextlib.suppress(OSError):  # a full disk shows where it matters, at the next log line or checkpoint
            self._record.heartbeat(done, every=self._heartbeat_seconds)

    def means(self, done: int, means: Mapping[str, float], rates: Mapping[str, float], waited: float) -> None:
        """Write the means since the last time, the rates of this step and the speed."""
        speed = self._speed.take(waited)
        self.values(done, {**means, **rates, **speed, **_memory()})
        self._progress.figures(done, {**means, **speed})
        for name, warning in self._collapse.observe(done, means).items():
            _log.warning(warning)
            self._record.incident("collapse", done, {"loss": name, "warning": warning})

    def values(self, done: int, values: Mapping[str, float]) -> None:
        """Write named numbers of the step just done."""
        line = {"epoch": self._timeline.epoch(done - 1), "time": time.time(), **values}
        for writer in self._writers:
            writer.write(done, line)

    def sync(self) -> None:
        """Have what was written on the disk."""
        self._lines.sync()

    def close(self) -> None:
        """Close writers and bar."""
        self._progress.close()
        for writer in self._writers:
            writer.close()


def _memory() -> dict[str, float]:
    return {"peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_initialized() else {}
