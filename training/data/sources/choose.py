"""Choosing frames of a video: pairs and windows by their distance, sandwiches by shares of its length."""

from __future__ import annotations

import numpy as np

from midway_hub.training.data.needs import Frames

SLACK = 5e-7
"""Seconds by which a time may miss its range, for the rounding of timestamps; no frame is that short."""


def choose_frames(
    times: np.ndarray,
    frames: Frames,
    gap: tuple[float, float],
    count: int,
    generator: np.random.Generator,
    *,
    first: int | None = None,
) -> list[tuple[int, ...]] | None:
    """Draw clips.

    Args:
        times: (n,) times of a video's frames, increasing, in the unit of `gap`; frame numbers where it counts frames.
        frames: What a clip is. The frames of a window are equally far apart, by a distance that is uniform in the
            range; those of a sandwich lie around the current one (T-CoRe, section 3.1), and are all the same where the
            video is too short.
        gap: Least and most distance of neighbours, both included.
        count: How many clips; they are independent of each other.
        generator: Where the numbers come from.
        first: The first frame of all clips, if it is not drawn.

    Returns:
        `count` tuples of frame numbers, or None if no clip fits.
    """
    if frames.kind == "pair":
        pairs = choose_pairs(times, gap, count, generator, first=first)
        return None if pairs is None else list(pairs)
    if frames.kind == "window" and frames.count > 1:
        return _windows(times, frames.count, gap, count, generator)
    if not len(times):
        return None
    if frames.kind == "sandwich":
        return [_sandwich(len(times), frames, generator) for _ in range(count)]
    return [(number,) for number in generator.integers(len(times), size=count).tolist()]


def room(frames: Frames, gap: object) -> str:
    """Say in words what a clip takes up."""
    return f"a gap of {gap}" if frames.kind == "pair" else f"{frames.count} frames that are {gap} apart"


def _windows(
    times: np.ndarray, length: int, gap: tuple[float, float], count: int, generator: np.random.Generator
) -> list[tuple[int, ...]] | None:
    starts = np.flatnonzero(times + (length - 1) * gap[1] <= times[-1] + SLACK) if len(times) else np.zeros(0, int)
    if not len(starts):
        return None
    whole = np.issubdtype(np.asarray(times).dtype, np.integer)
    steps = generator.integers(int(gap[0]), int(gap[1]) + 1, count) if whole else generator.uniform(*gap, count)
    begun = generator.choice(starts, size=count)
    wanted = times[begun][:, None] + steps[:, None] * np.arange(length)
    return [_nearest(times, row) for row in wanted]


def _nearest(times: np.ndarray, wanted: np.ndarray) -> tuple[int, ...]:
    """Return the frames that are nearest to some times."""
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    before = after - 1
    return tuple(np.where(wanted - times[before] <= times[after] - wanted, before, after).tolist())


def _sandwich(length: int, frames: Frames, generator: np.random.Generator) -> tuple[int, ...]:
    """Draw past, current and future of a video of so many frames; one frame three times where one is missing."""
    (low, high), (near, far) = frames.centre, frames.around
    least, most = int(low * length), int(high * length) - 1
    if least <= most:
        current = int(generator.integers(least, most + 1))
        past = range(max(0, current - int(far * length)), current - int(near * length) + 1)
        future = range(current + int(near * length), min(length - 1, current + int(far * length)) + 1)
        if len(past) and len(future):
            return int(generator.choice(past)), current, int(generator.choice(future))
    return (int(generator.integers(length)),) * 3


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
