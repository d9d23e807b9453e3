"""Which length of flow gets the full colours, where flow is drawn as it comes and the rest is not known yet."""

from __future__ import annotations

import math
import statistics
from collections import deque

import numpy as np

STEPS = (1, 2, 5)
PAIRS = 5


def vector_lengths(flow: np.ndarray) -> np.ndarray:
    """Return the length in pixels of every vector of a flow (H, W, 2), as float64: squares of float32 can overflow."""
    return np.linalg.norm(flow.astype(np.float64), axis=2)


def common_length(flow: np.ndarray) -> float:
    """Return the length in pixels that 99% of the pixels of a flow (H, W, 2) stay below."""
    return float(np.percentile(vector_lengths(flow), 99))


class ColourScale:
    """The scale of the pictures of a clip, from pair to pair, without a look ahead.

    It is the first of 1, 2, 5, 10, 20, 50, ... pixels that 99% of a pair's pixels stay below, by the median of the last
    five pairs, so that a single one, as at a cut, does not count. It grows where motion does, and is held where motion
    gets less: pictures are comparable from one step to the next, none is saturated, and none flickers.

    Args:
        fixed: Length in pixels for all pairs instead.
        start: What an earlier part of the clip had come to.

    Attributes:
        largest: Length in pixels of the full colours, of the last pair.
        steps: That length by number of the first pair that has it.
    """

    def __init__(self, fixed: float | None = None, *, start: float = 0.0) -> None:
        self._fixed, self._recent, self._pairs = fixed, deque[float](maxlen=PAIRS), 0
        self.largest = start if fixed is None else fixed
        self.steps: dict[int, float] = {}

    def of(self, flow: np.ndarray) -> float:
        """Return the length in pixels of the full colours for the next pair's flow (H, W, 2)."""
        if self._fixed is None:
            self._recent.append(common_length(flow))
            self.largest = max(self.largest, step_above(statistics.median(self._recent)))
        if not self.steps or self.largest != next(reversed(self.steps.values())):
            self.steps[self._pairs] = self.largest
        self._pairs += 1
        return self.largest


def step_above(length: float) -> float:
    """Return the first of 1, 2, 5, 10, 20, 50, ... that is not below a length."""
    if length <= 1:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(length))
    return next(step * decade for step in (*STEPS, 10 * STEPS[0]) if step * decade >= length)


__all__ = ["ColourScale", "common_length", "step_above", "vector_lengths"]
