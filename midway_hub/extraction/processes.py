"""Which share of the work is this process's, and on which device it does it."""

from __future__ import annotations

import os

import torch


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
    rank = _from_environment("RANK", 0) if rank is None else rank
    world_size = _from_environment("WORLD_SIZE", 1) if world_size is None else world_size
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be between 0 and world_size - 1, got rank {rank} of world_size {world_size}")
    return rank, world_size


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Choose where this process computes.

    Args:
        device: A device such as "cuda:1" or "cpu". Default: with CUDA the GPU numbered LOCAL_RANK (torchrun sets it),
            else MPS, else the CPU.

    Returns:
        The device.

    Raises:
        ValueError: torch knows no such device, or CUDA or MPS is asked for and not there.
    """
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device {device!r} is unknown to torch: {error}") from None
        available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
        if chosen.type in available and not available[chosen.type]():
            raise ValueError(f"device {device!r} is not available here; use 'cpu'")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda", _from_environment("LOCAL_RANK", 0) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"environment variable {name} must be a whole number, got {text!r}") from None
