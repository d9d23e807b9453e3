"""Every derived number of a finetuning run, with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from midway_hub.training.configuration import ConfigError
from midway_hub.training.plan import Derived, Plan
from midway_hub.training.tasks.config import FlowConfig, SegmentationConfig
from midway_hub.training.tasks.segmentation import head_config
from midway_hub.training.timeline import Timeline


def make_task_plan(config: FlowConfig | SegmentationConfig, *, items: int, world_size: int) -> Plan:
    """Work out steps, epochs and batch.

    Args:
        config: The run.
        items: Examples of one pass over the data.
        world_size: Processes.

    Raises:
        ConfigError: The examples of a step cannot be divided among processes and micro-batches.
    """
    data, accumulate = config.data, config.engine.accumulate
    share, rest = divmod(data.batch_size, world_size * accumulate)
    if rest or not share:
        raise ConfigError(
            f"data.batch_size {data.batch_size} cannot be shared by {world_size} processes x {accumulate} "
            f"micro-batches (engine.accumulate); make it a multiple of {world_size * accumulate}"
        )
    if share == world_size == 1 and _pools_to_one_position(config):
        raise ConfigError(
            f"UperNet trains on at least 2 pictures at a time, and data.batch_size {data.batch_size} in {accumulate} "
            "micro-batches (engine.accumulate) on one process makes it 1: raise the one, lower the other, or take "
            "several processes, whose BatchNorm is synchronised"
        )
    epoch = data.epoch_examples or items
    per_epoch = max(1, round(epoch / data.batch_size))
    steps = config.steps if config.steps is not None else (config.epochs or 1) * per_epoch
    timeline = Timeline(
        steps=steps, steps_per_epoch=per_epoch, batch_size=data.batch_size, visits_per_step=data.batch_size
    )
    return Plan(timeline, data.batch_size, share, tuple(_reasons(config, timeline, items, world_size, share)))


def _pools_to_one_position(config: FlowConfig | SegmentationConfig) -> bool:
    """Whether a BatchNorm of the head sees one value per picture and channel."""
    if isinstance(config, FlowConfig):
        return False
    head = head_config(config.task, *config.data.classes())
    return head.name == "upernet" and 1 in head.pool_scales


def _reasons(
    config: FlowConfig | SegmentationConfig, timeline: Timeline, items: int, world_size: int, share: int
) -> Iterator[Derived]:
    data, optimisation, start = config.data, config.task.optimisation, config.start
    yield Derived("processes", world_size, "as launched")
    yield Derived("examples in the data", items, data.described())
    yield Derived(
        "examples per micro-batch",
        share,
        f"data.batch_size {data.batch_size} / ({world_size} processes x {config.engine.accumulate} micro-batches)",
    )
    yield Derived("steps per epoch", timeline.steps_per_epoch, f"{data.epoch_examples or items} / {data.batch_size}")
    yield Derived(
        "steps",
        timeline.steps,
        "steps" if config.steps is not None else f"{config.epochs} epochs x {timeline.steps_per_epoch}",
    )
    yield Derived("examples seen", timeline.steps * timeline.batch_size, "steps x data.batch_size")
    where = "data.crop" if isinstance(config, FlowConfig) else "data.pipeline.crop"
    where = where if data.source == "files" else "data.world.size"
    yield Derived("crop", "x".join(map(str, data.example_size())), where)
    yield Derived("peak learning rate", optimisation.lr, "task.optimisation.lr, for the batch as it is")
    yield Derived(
        "warm-up steps",
        optimisation.rising_steps(timeline),
        "task.optimisation.warmup_epochs or warmup_steps, at most all",
    )
    yield Derived("starts from", start.weights or "an untrained network", "start.weights")
    yield Derived("dynamics", start.dynamics, "start.dynamics")
    yield Derived("trains", "the head" if start.freeze else "everything", f"start.freeze={start.freeze}")
