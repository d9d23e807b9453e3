"""Timing optimizer steps of the real method, and what memory and checkpoints take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.views import normalise_views
from midway_hub.training.doctor.machine import peak_memory
from midway_hub.training.doctor.measure import wait_for
from midway_hub.training.engine.protocol import Trainable

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepCost:
    """What steps of a method cost on a device.

    Attributes:
        batch: Pairs of the micro-batch that was timed: the one asked for, halved until it fit.
        seconds: Per pair: forward, backward and update.
        memory_fixed: Bytes that do not grow with the batch.
        memory_per_pair: Bytes that every pair adds.
        checkpoint: Bytes of weights, buffers and optimizer state.
    """

    batch: int
    seconds: float
    memory_fixed: int
    memory_per_pair: int
    checkpoint: int


def measure_step(
    trainable: Trainable,
    views: Callable[[int], Mapping[str, Tensor]],
    device: torch.device,
    *,
    batch: int,
    precision: str = "fp32",
    steps: int = 3,
) -> StepCost:
    """Take a few optimizer steps and time them. The trainable's weights change: give one made for this.

    Args:
        trainable: The method.
        views: Makes the uint8 views of a micro-batch of so many pairs.
        device: Where to train.
        batch: Pairs of a micro-batch.
        precision: `"fp32"`, `"bf16"` or `"fp16"`.
        steps: Steps that count, after one that warms up.

    Returns:
        Time, memory and size of a checkpoint.

    Raises:
        RuntimeError: Not even one pair fits into the device's memory.
    """
    trainable.network.to(device).train()
    optimizer = trainable.make_optimizer()
    while True:
        small = max(1, batch // 2)
        try:
            _, low = _timed(trainable, optimizer, views(small), device, precision, steps=1)
            seconds, high = _timed(trainable, optimizer, views(batch), device, precision, steps=steps)
            break
        except torch.OutOfMemoryError as error:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            if batch == 1:
                raise RuntimeError("not even one frame pair fits into the device's memory") from error
            batch //= 2
    per_pair = max(0, high - low) // max(1, batch - small)
    held = [*trainable.network.state_dict().values(), *_tensors(optimizer.state_dict())]
    return StepCost(
        batch=batch,
        seconds=seconds / batch,
        memory_fixed=max(0, high - batch * per_pair),
        memory_per_pair=per_pair,
        checkpoint=sum(tensor.numel() * tensor.element_size() for tensor in held),
    )


def _timed(
    trainable: Trainable,
    optimizer: torch.optim.Optimizer,
    views: Mapping[str, Tensor],
    device: torch.device,
    precision: str,
    *,
    steps: int,
) -> tuple[float, int]:
    """Median seconds of a step after the first, and peak memory."""
    batch = normalise_views({group: made.to(device) for group, made in views.items()})
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for step in range(steps + 1):
        start = time.perf_counter()
        trainable.schedule(optimizer, step)
        with torch.autocast(device.type, _DTYPES.get(precision), enabled=precision in _DTYPES):
            output = trainable.network(batch)
        torch.stack(list(output.losses.values())).sum().backward()
        trainable.before_update(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trainable.after_update(step)
        wait_for(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])), peak_memory(device)


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    children = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for child in children for tensor in _tensors(child)]
