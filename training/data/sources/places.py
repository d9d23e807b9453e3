"""Where decoded frames lie in their video, and when, by the numbers in their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from midway_hub.frame_names import Series
from midway_hub.training.data.settings import TimeUnit

SECONDS: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Units of time in a second."""

CUT = 10
"""Usual steps from which an irregular one is a cut: no pair of frames spans it."""


@dataclass(frozen=True)
class Places:
    """Where the frames of a video lie.

    Attributes:
        frames: (frames,) int64, the place of each; None for 0, 1, 2, ...
        seconds: (frames,) float64, times from the first one; None where names tell none.
        missing: Frames that a regular numbering leaves out.
        remark: What users should know; empty where the numbering is regular and complete.
    """

    frames: np.ndarray | None = None
    seconds: np.ndarray | None = None
    missing: int = 0
    remark: str = ""


def places_of(series: Series, unit: TimeUnit | None = None) -> Places:
    """Read places and times out of names.

    Numbers in equal steps are places, so that a frame that is missing leaves its place empty: the frames around it are
    not consecutive. Numbers in other steps, such as a camera's timestamps, give an order alone: the frames are
    consecutive, but for steps of ten usual ones and more, which are cuts.

    Args:
        series: The frames of one video.
        unit: What the last numbers count, if they are times.

    Raises:
        ValueError: There is a unit, and the names have no increasing number.
    """
    seconds = None
    if unit is not None:
        if series.stamps is None:
            raise ValueError(f"data.frame_times={unit} needs times in the names, which {series.names[0]} has not")
        scale = SECONDS[unit] * 10**series.decimals
        seconds = np.array([(stamp - series.stamps[0]) / scale for stamp in series.stamps])
    if series.numbers is None or len(series.numbers) < 2:
        return Places(seconds=seconds)
    # Python's own numbers first: timestamps of nanoseconds may be beyond those of numpy.
    numbers = np.array([number - series.numbers[0] for number in series.numbers], dtype=np.float64)
    steps = np.diff(numbers)
    usual = float(np.median(steps))
    if (steps == usual).all():
        return Places(seconds=seconds)
    least = float(steps.min())
    if usual == least and not (steps % least).any():
        frames = np.rint(numbers / least).astype(np.int64)
        missing = int(frames[-1]) + 1 - len(frames)
        return Places(frames, seconds, missing, f"{missing} frames are missing: {_step(series, steps)}")
    jumps = np.where(steps >= CUT * usual, np.ceil(steps / usual), 1).astype(np.int64)
    cuts = int((jumps > 1).sum())
    in_order = np.concatenate([[0], np.cumsum(jumps)]) if cuts else None
    cut = f", {cuts} of them taken for cuts" if cuts else ""
    return Places(in_order, seconds, 0, f"its numbers go on in steps of {least:.6g} to {steps.max():.6g}{cut}")


def _step(series: Series, steps: np.ndarray) -> str:
    widest = int(np.argmax(steps > steps.min()))
    return f"{series.names[widest]} is followed by {series.names[widest + 1]}"
