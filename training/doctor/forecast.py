"""From a few measured times to hours, data wait, memory and disk of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measured:
    """What was measured, or is known, of this data and this machine.

    Attributes:
        reading: Seconds that one core takes to read and decode one frame pair from the source.
        augmenting: Seconds that one core takes to make the views of one pair.
        step: Seconds per pair that forward, backward and update take on one device.
        step_bf16: The same with bfloat16 autocast, which fp16 is taken to equal; None if it was not measured.
        augmenting_on_device: Seconds per pair on the training device; None if it was not measured.
        reading_packed: Seconds that one core takes to decode one pair of these frames from a pack; None if unknown.
        memory_fixed: Bytes that weights, optimizer state and program take on one device.
        memory_per_pair: Bytes that every pair of a micro-batch adds.
        memory: Bytes that one process may use on its device.
        checkpoint: Bytes of one checkpoint.
        free_disk: Bytes that are free where the run directory is.
        cores: CPU cores of this machine.
    """

    reading: float
    augmenting: float
    step: float
    step_bf16: float | None = None
    augmenting_on_device: float | None = None
    reading_packed: float | None = None
    memory_fixed: int = 0
    memory_per_pair: int = 0
    memory: int | None = None
    checkpoint: int = 0
    free_disk: int | None = None
    cores: int = 1

    def __post_init__(self) -> None:
        for name in ("reading", "augmenting", "step"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a finite time of at least 0 s, got {getattr(self, name)}")
        if self.step == 0:
            raise ValueError("a step takes longer than 0 s; measure it with more steps")


@dataclass(frozen=True)
class RunPlan:
    """What the run is to do.

    Attributes:
        steps: Optimizer steps.
        pairs: Frame pairs of one optimizer step, over all processes and micro-batches.
        processes: Training processes on this machine, each with a device of its own.
        accumulate: Micro-batches of one step.
        workers: Reading processes of every training process; 0 reads in the training process itself.
        augment: Where the views are made.
        packed: Whether the source is a pack already.
        precision: Autocast of the step.
        checkpoints: How many checkpoints are kept at a time, the one being written included.
        shares_cores: Whether the step runs on the same CPU cores as the workers.
    """

    steps: int
    pairs: int
    processes: int = 1
    accumulate: int = 1
    workers: int = 2
    augment: Literal["cpu", "device"] = "cpu"
    packed: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpoints: int = 3
    shares_cores: bool = False

    @property
    def micro_batch(self) -> int:
        """Pairs that a device holds at a time, rounded up."""
        return -(-self.pairs // (self.processes * self.accumulate))


@dataclass(frozen=True)
class Forecast:
    """How a plan comes out.

    Attributes:
        data: Seconds that the workers of a process take for one step's pairs.
        compute: Seconds that its device takes.
        step: Seconds of one step: the slower of the two, or their sum without workers.
        wait: Share of a step in which the device waits for data.
        hours: Length of the run.
        memory: Bytes on every device.
        disk: Bytes of the checkpoints that are kept.
    """

    data: float
    compute: float
    step: float
    wait: float
    hours: float
    memory: int
    disk: int


def forecast(measured: Measured, plan: RunPlan) -> Forecast:
    """Work out how a plan comes out.

    Workers beyond the cores add nothing. Where the step runs on the CPU it shares the cores with the workers, so the
    work of both adds up over all cores.
    """
    pairs = plan.pairs / plan.processes
    reading = measured.reading_packed if plan.packed and measured.reading_packed is not None else measured.reading
    on_device = measured.augmenting_on_device if plan.augment == "device" else None
    per_pair = reading + (measured.augmenting if on_device is None else 0.0)
    bf16 = None if plan.precision == "fp32" else measured.step_bf16
    compute = pairs * ((measured.step if bf16 is None else bf16) + (on_device or 0.0))
    cores = measured.cores / plan.processes
    data = pairs * per_pair / (min(plan.workers, cores) or 1)
    if not plan.workers:
        step = data + compute
    elif plan.shares_cores:
        step = max(data, compute, (pairs * per_pair + compute * cores) / cores)
    else:
        step = max(data, compute)
    return Forecast(
        data=data,
        compute=compute,
        step=step,
        wait=1 - compute / step,
        hours=step * plan.steps / 3600,
        memory=measured.memory_fixed + plan.micro_batch * measured.memory_per_pair,
        disk=plan.checkpoints * measured.checkpoint,
    )
