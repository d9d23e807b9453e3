"""What tensors must be before anything is computed with them, and results before anything is made of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of number that networks compute with."""


def check_dense_tensor(tensor: Tensor, name: str) -> None:
    """Refuse tensors that do not hold their values one by one: nested, sparse or quantised ones, and meta tensors.

    Args:
        tensor: What the user passed.
        name: How the error calls it.

    Raises:
        ValueError: It is one of these; the message says what to do.
    """
    if tensor.is_nested:
        seen, advice = "a nested tensor", "stack frames of one size, or pass them one by one"
    elif tensor.device.type == "meta":
        seen, advice = "a meta tensor, which has a shape but no values", "make it on the device that computes"
    elif tensor.is_quantized:
        seen, advice = f"a quantised tensor of {tensor.dtype}", "pass its dequantize()"
    elif tensor.layout != torch.strided:
        seen, advice = f"one of layout {tensor.layout}", "pass its to_dense()"
    else:
        return
    raise ValueError(f"{name} must be a dense tensor, got {seen}; {advice}")


def bounds(tensor: Tensor) -> tuple[float, float]:
    """Return the least and the largest value in one reduction; both are NaN where any value is."""
    low, high = torch.stack(torch.aminmax(tensor.detach())).tolist()
    return low, high


def is_recorded(*tensors: Tensor) -> bool:
    """Whether values cannot be looked at, since what is computed is being traced, compiled or transformed."""
    recording = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return recording or any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))


def sizes_are_free() -> bool:
    """Whether sizes are being recorded as unknowns, which no branch may look at: in `torch.jit.trace` and export."""
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # before torch 2.7 there is none
    return torch.jit.is_tracing() or exporting()


def need_finite(values: Tensor | np.ndarray, name: str, *, where: str = "") -> None:
    """Refuse results that hold NaN or infinity, before a file, a picture or a number is made of them.

    Where all is well it costs one reduction, so it is called once per batch, and not by what training runs. Nothing is
    refused while values cannot be looked at, as in `torch.compile`.

    Args:
        values: What a network computed.
        name: How the error calls it.
        where: Where in it, as " in rows 8 to 15".

    Raises:
        ValueError: There is any; the message says how many, and what to try.
    """
    if isinstance(values, Tensor):
        if not values.numel() or is_recorded(values) or all(map(math.isfinite, bounds(values))):
            return
        broken, total = int((~torch.isfinite(values)).sum()), values.numel()
    else:
        broken, total = int((~np.isfinite(values)).sum()), values.size
        if not broken:
            return
    raise ValueError(
        f"{name} holds {broken} values that are NaN or infinite{where or f' of {total}'}; nothing was made of them. "
        "In float16 numbers overflow: try float32; in float32, look for a broken weight: midway-hub verify"
    )
