"""Choosing pairs of frames by their distance."""

from __future__ import annotations

import numpy as np

SLACK = 5e-7
"""Seconds by which a time may miss its range, for the rounding of timestamps; no frame is that short."""


def choose_pairs(
    times: np.ndarray, gap: tuple[float, float], count: int, generator: np.random.Generator
) -> list[tuple[int, int]] | None:
    """Draw pairs whose distance lies in a range.

    The first frame is uniform over those that leave room for the largest gap, the second uniform over the frames in the
    range behind it. With constant frame rate, the gap is uniform over the range and independent of the first frame.

    Args:
        times: (frames,) times of the frames, increasing, in the unit of `gap`; frame numbers where it counts frames.
        gap: Least and most distance, both included.
        count: How many pairs; they are independent of each other.
        generator: Where the numbers come from.

    Returns:
        `count` frame numbers (first, second), or None if no two frames fit.
    """
    least, most = gap
    place = np.arange(len(times))
    begin = np.maximum(np.searchsorted(times, times + least - SLACK, side="left"), place + 1)
    end = np.searchsorted(times, times + most + SLACK, side="right")
    starts = np.flatnonzero((end > begin) & (times + most <= times[-1] + SLACK))
    if not len(starts):
        return None
    firsts = generator.choice(starts, size=count)
    seconds = generator.integers(begin[firsts], end[firsts])
    return list(zip(firsts.tolist(), seconds.tolist(), strict=True))
