"""The random numbers of worlds: one block per seed, read in the same order for every world of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIRST_HELD_OUT = 1 << 62
LAST_SEED = (1 << 63) - 1
STREAM = 0x6D6964776179  # keeps worlds apart from other uses of the same numbers


def held_out_seeds(count: int, start: int = 0) -> range:
    """Return seeds of worlds that no training run sees: those from 2^62 on.

    Args:
        count: How many.
        start: How many held-out seeds to leave out before, so that several sets can be apart.

    Raises:
        ValueError: Negative numbers, or more than there are.
    """
    if count < 0 or start < 0 or FIRST_HELD_OUT + start + count > LAST_SEED:
        raise ValueError(f"held-out seeds need count >= 0 and start >= 0 below 2^62, got count={count}, start={start}")
    return range(FIRST_HELD_OUT + start, FIRST_HELD_OUT + start + count)


def check_seed(seed: int) -> int:
    """Return a seed as an int, or refuse what is not in [0, 2^63)."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) <= LAST_SEED:
        raise ValueError(f"the seed of a world is an integer from 0 to 2^63 - 1, got {seed!r}")
    return int(seed)


class Draws:
    """Uniform numbers of B worlds, handed out in order.

    Every world has blocks of its own, keyed by its seed, so that it does not depend on its neighbours in the batch.
    What was added to worlds later draws from another block: what was there before stays as it was.
    """

    def __init__(self, seeds: Sequence[int], count: int, *, block: int = 0) -> None:
        blocks = [
            np.random.Generator(np.random.Philox(key=(STREAM + block << 64) | check_seed(seed))).random(count)
            for seed in seeds
        ]
        self._numbers = np.stack(blocks)
        self._used = 0

    def unit(self, *shape: int) -> np.ndarray:
        """Uniform numbers (B, *shape) in [0, 1)."""
        first, self._used = self._used, self._used + int(np.prod(shape, dtype=int))
        if self._used > self._numbers.shape[1]:
            raise RuntimeError(f"a world has {self._numbers.shape[1]} random numbers, but {self._used} were asked for")
        return self._numbers[:, first : self._used].reshape(len(self._numbers), *shape)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Uniform numbers in [low, high)."""
        return low + (high - low) * self.unit(*shape)

    def signed(self, limit: float, *shape: int) -> np.ndarray:
        """Uniform numbers in [-limit, limit)."""
        return self.between(-limit, limit, *shape)

    def log_between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Numbers in [low, high) whose logarithm is uniform."""
        return np.exp(self.between(np.log(low), np.log(high), *shape))

    def happens(self, probability: float, *shape: int) -> np.ndarray:
        """True with a probability."""
        return self.unit(*shape) < probability

    def whole(self, low: int, high: int, *shape: int) -> np.ndarray:
        """Integers in [low, high]."""
        return low + (self.unit(*shape) * (high - low + 1)).astype(np.int64)

    def which(self, weights: Sequence[float], *shape: int) -> np.ndarray:
        """Indices, each as often as its weight says."""
        shares = np.cumsum(weights) / np.sum(weights)
        return np.searchsorted(shares[:-1], self.unit(*shape), side="right")

    def disc(self, limit: float, *shape: int) -> np.ndarray:
        """Vectors (B, *shape, 2) uniform over a disc of radius `limit`."""
        angle, length = self.between(0, 2 * np.pi, *shape), limit * np.sqrt(self.unit(*shape))
        return np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1)
