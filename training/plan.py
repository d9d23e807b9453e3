"""Every derived number of a run, with its reason: what `--dry-run` prints and what the run is built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from midway_hub.training.config import ConfigError, RunConfig
from midway_hub.training.timeline import Timeline

RELEASED_REPEATS = 5  # pairs per opened video that the released recipe's learning rate always counts


@dataclass(frozen=True)
class Derived:
    """A number that follows from the configuration, and why it is what it is."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """How a configuration comes out on a data set and a number of processes.

    Attributes:
        timeline: Steps, epochs and batch of the run.
        lr_batch_size: Pairs per step that the learning rate is scaled by.
        visits_per_micro_batch: Opened videos (or worlds) of one micro-batch on one process.
        derived: The same and more, with reasons.
    """

    timeline: Timeline
    lr_batch_size: int
    visits_per_micro_batch: int
    derived: tuple[Derived, ...]


def make_plan(config: RunConfig, *, items: int, world_size: int) -> Plan:
    """Work out steps, epochs, batch and learning rate.

    Args:
        config: The run.
        items: Length of the data source: files, decoded pairs or worlds of one pass.
        world_size: Processes.

    Raises:
        ConfigError: The visits of a step cannot be divided among processes and micro-batches.
    """
    data, accumulate = config.data, config.engine.accumulate
    share, rest = divmod(data.visits_per_step, world_size * accumulate)
    if rest or not share:
        raise ConfigError(
            f"data.visits_per_step {data.visits_per_step} cannot be shared by {world_size} processes x "
            f"{accumulate} micro-batches (engine.accumulate); make it a multiple of {world_size * accumulate}"
        )
    batch = data.visits_per_step * data.pairs_per_visit
    epoch_pairs = data.epoch_pairs or items
    steps_per_epoch = max(1, round(epoch_pairs / batch))
    steps = config.steps if config.steps is not None else (config.epochs or 1) * steps_per_epoch
    compat = config.compat
    timeline = Timeline(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch,
        visits_per_step=data.visits_per_step,
        epoch_stride=data.pairs_per_visit if compat.epochs_advance_by_repeats else 1,
    )
    lr_batch = data.visits_per_step * RELEASED_REPEATS if compat.lr_counts_repeats else batch
    derived = tuple(_reasons(config, timeline, items, world_size, share, lr_batch))
    return Plan(timeline, lr_batch, share, derived)


def _reasons(
    config: RunConfig, timeline: Timeline, items: int, world_size: int, share: int, lr_batch: int
) -> Iterator[Derived]:
    data, method, engine, unit = config.data, config.method, config.engine, config.method_class.unit
    epoch_pairs = data.epoch_pairs or items
    yield Derived("processes", world_size, "as launched")
    yield Derived("items in the data", items, f"data.source={data.source}")
    yield Derived(
        "visits per micro-batch",
        share,
        f"{data.visits_per_step} visits a step / ({world_size} processes x {engine.accumulate} micro-batches)",
    )
    yield Derived(
        f"{unit} per step",
        timeline.batch_size,
        f"{data.visits_per_step} visits x {data.pairs_per_visit} {unit} (data.pairs_per_visit)",
    )
    yield Derived(
        f"{unit} per epoch", epoch_pairs, "data.epoch_pairs" if data.epoch_pairs else "one per item of the data"
    )
    yield Derived(
        "steps per epoch",
        timeline.steps_per_epoch,
        f"{epoch_pairs} {unit} / {timeline.batch_size}, rounded, at least 1",
    )
    yield Derived(
        "steps",
        timeline.steps,
        "steps" if config.steps is not None else f"{config.epochs} epochs x {timeline.steps_per_epoch}",
    )
    yield Derived(
        "passes over the data",
        round(timeline.steps * timeline.visits_per_step / max(1, items), 2),
        f"{timeline.steps} steps x {timeline.visits_per_step} visits / {items} items",
    )
    yield Derived(f"{unit} seen", timeline.steps * timeline.batch_size, f"steps x {unit} per step")
    yield Derived(
        "peak learning rate",
        method.peak_learning_rate(lr_batch),
        method.explained_learning_rate(lr_batch)
        + (" (compat.lr_counts_repeats)" if config.compat.lr_counts_repeats else ""),
    )
    yield Derived(
        "warm-up steps",
        method.warmup_steps(timeline),
        f"method.warmup_epochs {method.warmup_epochs} x {timeline.steps_per_epoch} steps, at most all",
    )
    if timeline.epoch_stride > 1:
        yield Derived(
            "epoch counter", f"moves by {timeline.epoch_stride}", "compat.epochs_advance_by_repeats: once per pass"
        )
    yield Derived("compat switches on", ", ".join(config.compat.switched_on()) or "none", "compat.*")
