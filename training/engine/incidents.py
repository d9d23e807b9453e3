"""What is kept of a step that was not finite, so that it can be looked at and run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from midway_hub.training.engine.random_state import RandomState


def save_incident(
    folder: Path, rank: int, micro_batches: Sequence[Mapping[str, Any]], random_state: RandomState
) -> str:
    """Write what one process saw in a step: its micro-batches as the network took them, and its generators before.

    Args:
        folder: `incidents/step_N/`; files are `rank_R_micro_M.safetensors` and `rank_R_random.safetensors`.
        rank: Of the process.
        micro_batches: Dicts of tensors.
        random_state: From before the first micro-batch; `RandomState.from_tensors` reads it.

    Returns:
        Where it is, or why it could not be written: keeping evidence must not end a run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, batch in enumerate(micro_batches):
            _save(folder / f"rank_{rank}_micro_{index}.safetensors", batch)
        _save(folder / f"rank_{rank}_random.safetensors", random_state.tensors())
    except (OSError, safetensors.SafetensorError) as error:
        return f"not saved: {error}"
    return str(folder)


def _save(path: Path, values: Mapping[str, Any]) -> None:
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    safetensors.torch.save_file(tensors, path)
