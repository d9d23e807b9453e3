"""Between a run in memory, over all its processes, and its checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from torch import Tensor

from midway_hub.training.engine.best import Best
from midway_hub.training.engine.checkpoint import Checkpoint
from midway_hub.training.engine.guard import Guard
from midway_hub.training.engine.processes import Together
from midway_hub.training.engine.random_state import RandomState, seed_all
from midway_hub.training.engine.run_directory import RunDirectory
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.engine.step import OptimizerStep

_log = logging.getLogger("midway_hub")


class Snapshots:
    """Saves and brings back everything that the next step depends on.

    Args:
        stepper: Has network, optimizer, loss scale and running means.
        guard: Has the counts of steps that were not taken.
        directory: Of the run.
        together: Its processes.
        settings: When checkpoints are due.
        done: Optimizer steps that the last checkpoint has, 0 without one.
        alike: Every process starts from the same random state.
        best: The best weights so far, where they are kept.
    """

    def __init__(
        self,
        stepper: OptimizerStep,
        guard: Guard,
        directory: RunDirectory,
        together: Together,
        settings: EngineSettings,
        done: int,
        *,
        alike: bool = False,
        best: Best | None = None,
    ) -> None:
        self._stepper, self._guard, self._directory, self._together = stepper, guard, directory, together
        self._every_steps, self._every_minutes = settings.checkpoint_every_steps, settings.checkpoint_every_minutes
        self._saved_step, self._saved_time = done, time.monotonic()
        self._last = directory.checkpoints.load(done) if done else None
        self._alike, self._best = alike, best

    def due_at(self, step: int) -> bool:
        """Return whether there is to be a checkpoint after `step` steps."""
        return self._every_steps is not None and step % self._every_steps == 0

    def due_now(self) -> bool:
        """Return whether it is time for one, by the first process's clock."""
        minutes = self._every_minutes
        return self._together.rank == 0 and minutes is not None and time.monotonic() - self._saved_time > 60 * minutes

    def save(self, step: int) -> None:
        """Write a checkpoint after `step` steps; every process calls this.

        Raises:
            DiskFullError: It does not fit. `RankZeroError` in the other processes.
        """
        if self._saved_step == step:
            return
        device, averages = self._stepper.fabric.device, self._stepper.averages
        generators = {f"random.{name}": value for name, value in RandomState.capture(device).tensors().items()}
        ranks = self._together.gather(generators | {f"mean.{name}": sums for name, sums in averages.state().items()})
        rejected = [entry for found in self._together.gather(self._stepper.batches.rejected()) for entry in found]
        self._together.on_rank_zero(lambda: self._write(step, ranks, rejected), patient=True)
        self._saved_step, self._saved_time = step, time.monotonic()

    def load_weights(self) -> None:
        """Bring back network, optimizer, loss scale, counts and best weights, if there is a checkpoint.

        Before the network is wrapped, so that every process starts from the same.
        """
        if self._last is None:
            return
        self._stepper.trainable.network.load_state_dict(self._last.network)
        self._stepper.optimizer.load_state_dict(self._last.optimizer)
        self._guard.load(self._last.engine["guard"])
        if self._best is not None:
            self._best.load(self._last.engine.get("best"), self._last.best)
        if self._stepper.scaler and self._last.engine["scaler"]:
            self._stepper.scaler.load_state_dict(self._last.engine["scaler"])

    def load_random_state(self, seed: int) -> None:
        """Put generators and running means where they belong; right before the next step, since setting up may draw."""
        last, rank, size = self._last, self._together.rank, self._together.size
        self._last, seeded_as = None, 0 if self._alike else rank
        if last is None:
            seed_all(seed, seeded_as)
        elif len(last.ranks) == size:
            self._stepper.averages.load(_below("mean.", last.ranks[rank]))
            RandomState.from_tensors(_below("random.", last.ranks[rank])).restore(self._stepper.fabric.device)
        else:
            seed_all(seed + last.step, seeded_as)
            _log.warning(
                "%d processes go on from a checkpoint of %d: weights and samples are the same, dropout is drawn anew",
                size,
                len(last.ranks),
            )

    def _write(self, step: int, ranks: list[dict[str, Tensor]], rejected: list[dict[str, str]]) -> None:
        scaler, best = self._stepper.scaler, self._best
        self._directory.write_rejected(rejected)
        self._directory.checkpoints.save(
            Checkpoint(
                step=step,
                network=self._stepper.trainable.network.state_dict(),
                optimizer=self._stepper.optimizer.state_dict(),
                engine={
                    "guard": self._guard.state(),
                    "scaler": scaler.state_dict() if scaler else None,
                    "best": best.facts() if best else None,
                },
                ranks=ranks,
                best=best.network if best else {},
            )
        )


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
