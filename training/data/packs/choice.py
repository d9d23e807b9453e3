"""Which frames of a video a pack keeps, and at which size."""

from __future__ import annotations

import numpy as np

from midway_hub.training.data.packs.settings import PackSettings


def frames_to_keep(timestamps: np.ndarray, settings: PackSettings) -> np.ndarray:
    """Choose frames by `every` or `fps`, and within the budget `max_frames`.

    Args:
        timestamps: (n,) seconds of all frames of a video, increasing.
        settings: the pack's.

    Returns:
        (runs, length) int64 frame numbers, increasing; a run has no gaps but those of thinning out.
    """
    if settings.fps is None:
        numbers = np.arange(0, len(timestamps), settings.every)
    else:
        # Half a microsecond, so that 3/30 s counts as the start of the third tick of 1/30 s.
        ticks = np.floor((timestamps + 5e-7) * settings.fps)
        numbers = np.flatnonzero(np.diff(ticks, prepend=-1) > 0)
    if settings.max_frames is None or len(numbers) <= settings.max_frames:
        return numbers[None]
    runs = settings.max_frames // settings.run
    length = settings.max_frames // runs
    room = len(numbers) - length
    starts = np.linspace(0, room, runs).round().astype(np.int64) if runs > 1 else np.array([room // 2])
    return numbers[starts[:, None] + np.arange(length)]


def packed_size(width: int, height: int, settings: PackSettings) -> tuple[int, int]:
    """Return width and height at which frames are stored: smaller by one factor, or as they are.

    H.264 with 4:2:0 colour has even sides, so an odd one loses or gains a pixel there.
    """
    factor = 1.0 if settings.short_side is None else min(1.0, settings.short_side / min(width, height))
    if settings.form == "h264":
        return max(2, 2 * round(width * factor / 2)), max(2, 2 * round(height * factor / 2))
    return max(1, round(width * factor)), max(1, round(height * factor))
