"""All the measurements that a diagnosis needs, in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from midway_hub.training.data.clip import ClipSource
from midway_hub.training.data.flow_provider import FlowAsked
from midway_hub.training.data.needs import Needs
from midway_hub.training.doctor.forecast import Measured, RunPlan
from midway_hub.training.doctor.machine import describe_machine
from midway_hub.training.doctor.measure import (
    ENOUGH,
    measure_augmentation,
    measure_batched_augmentation,
    measure_packed_reading,
    measure_readers,
    measure_reading,
    views_of,
)
from midway_hub.training.doctor.step import StepCost, measure_step
from midway_hub.training.engine.protocol import Trainable

LARGEST_ON_CPU = 4
"""Pairs of the micro-batch that is timed on a CPU, where the time per pair hardly depends on it."""


@dataclass(frozen=True)
class Examination:
    """What was measured.

    Attributes:
        measured: For `diagnose`.
        readers: Pairs per second of every video reader on one core, or why it cannot be used; empty without videos.
        device: What the step was timed on.
        batch: Pairs of the micro-batch that was timed.
    """

    measured: Measured
    readers: dict[str, float | str]
    device: str
    batch: int


def examine(
    source: ClipSource,
    make_trainable: Callable[[], Trainable],
    plan: RunPlan,
    *,
    needs: Needs,
    flow: FlowAsked | None = None,
    pairs_per_visit: int,
    device: torch.device,
    run_dir: str | Path = ".",
    source_with_reader: Callable[[str], ClipSource] | None = None,
    readers: Collection[str] = (),
    can_pack: bool = False,
    seconds: float = ENOUGH,
    progress: Callable[[str], None] = lambda what: None,
) -> Examination:
    """Measure reading, views and the step on this data and this machine.

    Args:
        source: The data, as the run reads it.
        make_trainable: Builds the method; called once per precision that is timed, because steps change it.
        plan: The run; its micro-batch is timed (on a CPU a smaller one).
        needs: What the method asks for.
        flow: The flow that it asks for.
        pairs_per_visit: Pairs taken each time an item is opened.
        device: Where the run trains.
        run_dir: Where its checkpoints will be.
        source_with_reader: Builds the source with a named video reader, for `readers`.
        readers: Video readers to compare.
        can_pack: Whether the source could be packed.
        seconds: About how long every single measurement takes.
        progress: Called with what is measured next.

    Returns:
        The measurements.

    Raises:
        NothingToMeasureError: No item of the data can be read.
        RuntimeError: Not even one pair fits into the device's memory.
    """
    machine = describe_machine(device, run_dir)
    progress("reading")
    reading, pairs = measure_reading(source, pairs_per_visit=pairs_per_visit, seconds=seconds)
    rates: dict[str, float | str] = {}
    if source_with_reader is not None:
        progress("video readers")
        rates = measure_readers(source_with_reader, readers, pairs_per_visit=pairs_per_visit, seconds=seconds)
    progress("views")
    augmenting = measure_augmentation(pairs, needs, flow=flow, seconds=seconds)
    on_gpu = device.type == "cuda"
    batch = plan.micro_batch if on_gpu else min(plan.micro_batch, LARGEST_ON_CPU)

    def step(precision: str, batch: int) -> StepCost:
        progress(f"training step, {precision}")
        made = views_of(pairs, needs, batch=batch, flow=flow)
        return measure_step(
            make_trainable(),
            lambda count: {group: tensor[:count] for group, tensor in made.items()},
            device,
            batch=batch,
            precision=precision,
        )

    cost = step("fp32", batch)
    low = step("bf16", cost.batch) if on_gpu or plan.precision != "fp32" else None
    taken = low if low is not None and plan.precision != "fp32" else cost
    on_device = None
    if on_gpu:
        progress("views on the device")
        on_device = measure_batched_augmentation(pairs, needs, device, batch=cost.batch, seconds=seconds)
    measured = Measured(
        reading=reading,
        augmenting=augmenting,
        step=cost.seconds,
        step_bf16=None if low is None else low.seconds,
        augmenting_on_device=on_device,
        reading_packed=measure_packed_reading(pairs, seconds=seconds) if can_pack else None,
        memory_fixed=taken.memory_fixed,
        memory_per_pair=taken.memory_per_pair,
        memory=machine.memory,
        checkpoint=cost.checkpoint,
        free_disk=machine.free_disk,
        cores=machine.cores,
    )
    return Examination(measured, rates, machine.device, cost.batch)
