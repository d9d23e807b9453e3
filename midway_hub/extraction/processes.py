"""Which share of the work is this process's."""

from __future__ import annotations

from midway_hub.devices import choose_device, whole_number


def this_process(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Return this process's number and how many there are; torchrun sets both in the environment.

    Args:
        rank: Number of this process, from 0; default: RANK, else 0.
        world_size: Number of processes; default: WORLD_SIZE, else 1.

    Returns:
        `(rank, world_size)`.

    Raises:
        ValueError: They are no numbers, or the rank is not one of the processes.
    """
    rank = whole_number("RANK", 0) if rank is None else rank
    world_size = whole_number("WORLD_SIZE", 1) if world_size is None else world_size
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be between 0 and world_size - 1, got rank {rank} of world_size {world_size}")
    return rank, world_size


__all__ = ["choose_device", "this_process"]
