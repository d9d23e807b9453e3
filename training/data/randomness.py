"""Random numbers that depend on what they are for and on a count, never on who draws them or when."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Return the generator of one purpose and one item.

    Args:
        seed: Seed of the run.
        purpose: What the numbers are for; different purposes are independent.
        numbers: Which item, e.g. a visit and an attempt.
    """
    # A hash, because SeedSequence takes (1,) and (1, 0), and (2**32,) and (0, 1), for the same.
    digest = hashlib.blake2b(repr((seed, purpose, numbers)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
