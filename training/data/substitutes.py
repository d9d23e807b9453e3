"""What takes an unreadable item's turn: another item, chosen by the turn's number alone."""

from __future__ import annotations

from collections.abc import Iterator

from midway_hub.training.data.randomness import generator

SPARE_ATTEMPTS = 10
"""Draws that a turn may try beyond one for every item, where items are readable in parts."""


def turns(item: int, items: int, *, seed: int, number: int) -> Iterator[int]:
    """Yield a turn's own item, then the others in an order of its own, then again.

    Args:
        item: The item whose turn it is.
        items: Items of the source.
        seed: Seed of the run.
        number: Number of the turn, which the order depends on.
    """
    yield item
    order = generator(seed, "substitute", number).permutation(items).tolist()
    order.remove(item)
    order.append(item)
    for attempt in range(items - 1 + SPARE_ATTEMPTS):
        yield order[attempt % items]
