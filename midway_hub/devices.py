"""Where networks run: the best device there is, or the one that is asked for, if there is such a one."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of x86's and Arm's commands for it, as Linux lists them."""


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Choose where this process computes.

    Args:
        device: A device such as "cuda:1" or "cpu". Default: with CUDA the GPU numbered LOCAL_RANK (torchrun sets it),
            else MPS, else the CPU.

    Returns:
        The device.

    Raises:
        ValueError: torch knows no such device, or it is not there; the message says what is.
    """
    if device is not None:
        return checked_device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", whole_number("LOCAL_RANK", 0) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def checked_device(device: str | torch.device | int) -> torch.device:
    """Return a device that networks can run on.

    Args:
        device: Such as "cuda:1", "cpu", or the number of a GPU.

    Returns:
        The device.

    Raises:
        ValueError: torch knows no such device, or it is not there; the message says what is.
    """
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device {str(device)!r} is unknown to torch; {_advice()}") from None
    if chosen.type == "meta":
        raise ValueError(f"device 'meta' holds no numbers; {_advice()}")
    counts = _counts()
    if chosen.type not in counts or (chosen.index or 0) >= counts[chosen.type]:
        raise ValueError(f"device {str(device)!r} is not available here; {_advice()}")
    return torch.device("cpu") if chosen.type == "cpu" else chosen


def native_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Return whether a device has commands for bfloat16, with which it computes faster than in float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not CPU_BFLOAT16.isdisjoint(flags)


def whole_number(variable: str, default: int) -> int:
    """Read an environment variable that holds a whole number."""
    text = os.environ.get(variable, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"environment variable {variable} must be a whole number, got {text!r}") from None


def _counts() -> dict[str, int]:
    """How many devices there are of each kind that is there."""
    kind = torch.accelerator.current_accelerator()
    found = 0 if kind is None or not torch.accelerator.is_available() else torch.accelerator.device_count()
    return {"cpu": 1, **({kind.type: found} if kind is not None and found else {})}


def _advice() -> str:
    names = []
    for kind, count in _counts().items():
        names += [kind] if count == 1 else [f"{kind}:{index}" for index in range(count)]
    return f"use {' or '.join(map(repr, names))}"
