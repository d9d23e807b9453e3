"""Numbers that change over a run: pure functions of the step."""

from __future__ import annotations

import math

from midway_hub.training.timeline import Timeline


def cosine(step: float, *, start: float, end: float, steps: float) -> float:
    """Go from `start` at step 0 to `end` at `steps` along half a cosine, and stay there."""
    progress = min(step / steps, 1.0) if steps else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(step: float, *, peak: float, end: float, warmup: float, steps: float) -> float:
    """Rise linearly from 0 to `peak` over `warmup` steps, then follow a cosine to `end` at `steps`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, start=peak, end=end, steps=steps - warmup)


def schedule_position(step: int, timeline: Timeline) -> float:
    """Return where schedules stand at an optimizer step, in steps: at `step`, but for the released recipe's counter.

    Where the epoch counter jumps by `epoch_stride`, schedules crawl at 1/stride in between: the released recipe reads
    them at (steps of a pass) · epoch + (step within the pass), which comes to `epoch_stride` times the run's steps.
    """
    stride = timeline.epoch_stride
    passes, within = divmod(step, timeline.steps_per_epoch * stride)
    return passes * timeline.steps_per_epoch * stride + within / stride
