"""Checks that several sections of the world's settings share."""

from __future__ import annotations

Range = tuple[float, float]


def check_weights(name: str, weights: dict[str, float], known: tuple[str, ...]) -> None:
    """Refuse weights of unknown things, negative weights, and weights that are all zero."""
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise ValueError(f"{name} has {unknown}; there are {', '.join(known)}")
    if min(weights.values(), default=0) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"{name} must be at least 0 and not all 0, got {weights}")


def check_range(name: str, value: Range, low: float, high: float) -> None:
    """Refuse a range that is not `low <= least <= most <= high`."""
    if not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} is a range [least, most] within [{low:g}, {high:g}], got {list(value)}")
