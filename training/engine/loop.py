"""A whole run: from a run directory, new or left behind, to its last checkpoint."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from midway_hub.training.engine.best import Best, Keep
from midway_hub.training.engine.collapse import CollapseWatch
from midway_hub.training.engine.configuration import Complete
from midway_hub.training.engine.feed import Feed
from midway_hub.training.engine.guard import Guard
from midway_hub.training.engine.incidents import save_incident
from midway_hub.training.engine.interrupt import EXIT_CODE, Interrupt
from midway_hub.training.engine.metrics import check_writers
from midway_hub.training.engine.probe import Probe, run_probes
from midway_hub.training.engine.processes import Together
from midway_hub.training.engine.protocol import Batches, Trainable
from midway_hub.training.engine.run_directory import RunDirectory
from midway_hub.training.engine.run_log import RunLog
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.engine.snapshots import Snapshots
from midway_hub.training.engine.step import OptimizerStep, StepRecord
from midway_hub.training.engine.versions import device_name, versions
from midway_hub.training.timeline import Timeline

_log = logging.getLogger("midway_hub")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: `finished`, or `interrupted` by a signal and ready to go on.
        step: Optimizer steps done.
        checkpoint: Folder of the last checkpoint.
        exit_code: What the process should exit with: 75 from the first process of an interrupted run, else 0.
    """

    state: Literal["finished", "interrupted"]
    step: int
    checkpoint: Path
    exit_code: int


def train(
    trainable: Trainable,
    batches: Batches,
    settings: EngineSettings,
    run_directory: Path,
    *,
    fabric: Fabric,
    timeline: Timeline,
    config: Mapping[str, Any],
    seed: int = 0,
    alike: bool = False,
    probes: Sequence[Probe] = (),
    keep: Keep | None = None,
    may_change: Iterable[str] = (),
    complete: Complete = dict,
    on_open: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train from the beginning, or go on where the run directory's last whole checkpoint is.

    Every process calls this. Going on is exact: the weights are those of a run that was never stopped, bit by bit, on
    the same hardware, versions and number of processes.

    Args:
        trainable: What is trained; its network ends up with the last weights, on the device.
        batches: Where micro-batches come from.
        settings: How the run is carried out.
        run_directory: Where everything is written.
        fabric: From `make_fabric(settings)`.
        timeline: How long the run is.
        config: The whole configuration as plain values; a run directory of another one is refused.
        seed: Of dropout and whatever else draws from the global generators; each process gets its own.
        alike: Every process draws the same from them instead.
        probes: What is measured now and then.
        keep: Keep the best weights so far in every checkpoint, by a number of a probe; default: only the last ones.
        may_change: Dotted keys of `config`, besides the engine's own, that do not say what is learned.
        complete: Gives a configuration that an earlier version saved the keys that it did not have yet.
        on_open: Called in the first process once the run directory is this run's own.

    Returns:
        How the run ended, with the exit code for the process.

    Raises:
        RunDirectoryInUseError: Another job runs in the directory.
        ConfigurationChangedError: The directory holds a run of another configuration, or on other data.
        CheckpointError: The directory has checkpoints and none is whole.
        NonFiniteError: Too many steps were not finite.
        DiskFullError: Nothing more can be written; the last checkpoint is untouched.
        RankZeroError: In the other processes, whatever the first one failed with.
    """
    check_writers(settings)
    together = Together(fabric, settings)
    directory = RunDirectory(Path(run_directory), config, settings, may_change=may_change, complete=complete)
    fingerprint = batches.fingerprint()
    done = together.on_rank_zero(lambda: directory.open(fingerprint), patient=True)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(directory.close)
        together.on_rank_zero(on_open, patient=True)
        interrupt = cleanup.enter_context(Interrupt())
        run = _Run(trainable, batches, settings, directory, fabric, together, timeline, probes, alike=alike, keep=keep)
        try:
            return run.go(done, seed, interrupt, cleanup)
        except BaseException as error:
            run.note_failure(error)
            raise


class _Run:
    log: RunLog  # in the first process only

    def __init__(
        self,
        trainable: Trainable,
        batches: Batches,
        settings: EngineSettings,
        directory: RunDirectory,
        fabric: Fabric,
        together: Together,
        timeline: Timeline,
        probes: Sequence[Probe],
        *,
        alike: bool,
        keep: Keep | None,
    ) -> None:
        self.trainable, self.batches, self.settings, self.directory = trainable, batches, settings, directory
        self.fabric, self.together, self.timeline, self.probes = fabric, together, timeline, probes
        self.alike, self.best = alike, Best(keep) if keep else None
        self.done = 0

    def go(self, done: int, seed: int, interrupt: Interrupt, cleanup: contextlib.ExitStack) -> Outcome:
        """Set everything up as it was after `done` steps, and train on."""
        self.done = done
        self.stepper = OptimizerStep(self.trainable, self.batches, self.fabric, self.settings)
        self.guard = Guard(self.settings, scaled=self.stepper.scaler is not None)
        self.snapshots = Snapshots(
            self.stepper,
            self.guard,
            self.directory,
            self.together,
            self.settings,
            done,
            alike=self.alike,
            best=self.best,
        )
        self.snapshots.load_weights()
        if done >= self.timeline.steps:
            return self._end("finished")
        self.stepper.wrap(self.settings.compile)
        devices = self.together.gather(device_name(self.fabric.device))
        self.together.on_rank_zero(lambda: self._open_log(seed, devices, cleanup))
        accumulate = self.settings.accumulate
        feed = Feed(self.batches, done * accumulate, self.timeline.steps * accumulate)
        cleanup.callback(feed.close)
        self.snapshots.load_random_state(seed)
        return self._end(self._train(feed, interrupt))

    def _train(self, feed: Feed, interrupt: Interrupt) -> Literal["finished", "interrupted"]:
        for step in range(self.done, self.timeline.steps):
            last = step + 1 == self.timeline.steps
            record = self.stepper.take(
                step,
                feed,
                stop=interrupt.requested is not None,
                save=self.snapshots.due_now(),
                read=last or (step + 1) % self.settings.log_every == 0,
            )
            agreement, self.done = record.agreement, step + 1
            if self.fabric.is_global_zero:
                self.log.step(self.done)
            if self.guard.is_incident(agreement):
                self._keep_incident(record)
            if agreement.means is not None:
                self._log_means(record, agreement.means, feed.take_waited())
            self._probe()
            if last or agreement.save or agreement.stop or self.snapshots.due_at(self.done):
                self.together.on_rank_zero(lambda: self.log.sync())
                self.snapshots.save(self.done)
            if agreement.stop and not last:
                return "interrupted"
        return "finished"

    def _log_means(self, record: StepRecord, means: dict[str, float], waited: float) -> None:
        self.together.on_rank_zero(lambda: self.log.means(self.done, means, record.rates, waited))

    def _probe(self) -> None:
        due = [probe for probe in self.probes if self.done % probe.every == 0]
        if due:
            self.together.on_rank_zero(lambda: self._run_probes(due), patient=True)

    def _run_probes(self, due: list[Probe]) -> None:
        values, errors = run_probes(due, self.trainable, self.fabric.device)
        if values:
            self.log.values(self.done, values)
        if self.best is not None:
            self.best.observe(self.done, values, self.trainable.network)
        for error in errors:
            self.directory.record.incident("probe failed", self.done, {"reason": error})

    def _keep_incident(self, record: StepRecord) -> None:
        """Note a step that was not taken, keep its batch if it is one of the first, and stop if there were too many."""
        bad = sorted(name for name, value in record.values.items() if not torch.isfinite(value))
        folder = self.directory.incidents / f"step_{self.done}"
        others = [path for path in self.directory.incidents.glob("step_*") if path != folder]
        kept = None
        if len(others) < self.settings.saved_incidents and ("loss" in bad or record.agreement.loss_finite):
            finished = [self.batches.finish(batch, self.fabric.device) for batch in record.micro_batches]
            kept = save_incident(folder, self.together.rank, finished, record.random_state)
        ranks: list[dict[str, Any]] = self.together.gather({"not_finite": bad, "kept": kept})
        self.together.on_rank_zero(lambda: self.directory.record.incident("not finite", self.done, {"ranks": ranks}))
        what = "; ".join(f"process {rank}: {', '.join(found['not_finite'])}" for rank, found in enumerate(ranks))
        if self.fabric.is_global_zero:
            _log.warning("step %d was not taken; not finite in %s", self.done, what)
        self.guard.stop_if_hopeless(f"At step {self.done}, not finite in {what}; see {self.directory.incidents}")

    def _open_log(self, seed: int, devices: list[str], cleanup: contextlib.ExitStack) -> None:
        facts = {"steps": self.timeline.steps, "seed": seed, "world_size": len(devices), "devices": devices}
        self.directory.record.start(step=self.done, versions=versions(), **facts)
        collapse = CollapseWatch(self.trainable.collapse_values(), patience=self.settings.collapse_patience_steps)
        self.log = RunLog(self.directory, self.settings, self.timeline, self.done, collapse)
        cleanup.callback(self.log.close)

    def _end(self, state: Literal["finished", "interrupted"]) -> Outcome:
        self.together.on_rank_zero(lambda: self.directory.record.end(state, self.done))
        code = EXIT_CODE if state == "interrupted" and self.fabric.is_global_zero else 0
        return Outcome(state, self.done, self.directory.checkpoints.path(self.done), code)

    def note_failure(self, error: BaseException) -> None:
        """Write to `run.json` why the run ended, if that can be written."""
        if self.fabric.is_global_zero:
            with contextlib.suppress(OSError):
                self.directory.record.end("failed", self.done, f"{type(error).__name__}: {error}")
