"""Numbers that change over a run: pure functions of the step."""

from __future__ import annotations

import math


def cosine(step: float, *, start: float, end: float, steps: float) -> float:
    """Go from `start` at step 0 to `end` at `steps` along half a cosine, and stay there."""
    progress = min(step / steps, 1.0) if steps else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warmup_cosine(
    step: float, *, peak: float, end: float, warmup: float, steps: float, reached: float | None = None
) -> float:
    """Rise linearly from 0 to `peak` over `warmup` steps, then follow a cosine to `end` at `steps`.

    Args:
        step: Where the run is, from 0.
        peak: Highest value.
        end: Value at `steps`.
        warmup: Steps that rise.
        steps: Length of the run.
        reached: Step of the straight line at which it is at `peak`; default: `warmup`, the first step of the cosine.
    """
    if step < warmup:
        return peak * step / (warmup if reached is None else reached) if step else 0.0
    return cosine(step - warmup, start=peak, end=end, steps=steps - warmup)
