"""Choosing pairs of frames by their distance."""

from __future__ import annotations

import numpy as np

SLACK = 5e-7
"""Seconds by which a time may miss its range, for the rounding of timestamps; no frame is that short."""


def choose_pairs(
    times: np.ndarray,
    gap: tuple[float, float],
    count: int,
    generator: np.random.Generator,
    *,
    first: int | None = None,
) -> list[tuple[int, int]] | None:
    """Draw pairs whose distance lies in a range.

    The first frame is uniform over those that leave room for the largest gap, the second uniform over the frames in the
    range behind it. With constant frame rate, the gap is uniform over the range and independent of the first frame.

    Args:
        times: (frames,) times of the frames, increasing, in the unit of `gap`; frame numbers where it counts frames.
        gap: Least and most distance, both included.
        count: How many pairs; they are independent of each other.
        generator: Where the numbers come from.
        first: The first frame of all pairs, if it is not drawn.

    Returns:
        `count` frame numbers (first, second), or None if no two frames fit.
    """
    starts, begin, end = _reached(times, gap)
    if first is not None:
        starts = starts[starts == first]
    if not len(starts):
        return None
    firsts = generator.choice(starts, size=count)
    seconds = generator.integers(begin[firsts], end[firsts])
    return list(zip(firsts.tolist(), seconds.tolist(), strict=True))


def first_frames(times: np.ndarray, gap: tuple[float, float]) -> np.ndarray:
    """Return the numbers of the frames that `choose_pairs` draws the first one of a pair from."""
    return _reached(times, gap)[0]


def _reached(times: np.ndarray, gap: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first frames there are; and of every frame, where those within the range begin and end."""
    least, most = gap
    begin = np.maximum(np.searchsorted(times, times + least - SLACK, side="left"), np.arange(len(times)) + 1)
    end = np.searchsorted(times, times + most + SLACK, side="right")
    return np.flatnonzero((end > begin) & (times + most <= times[-1] + SLACK)), begin, end
