"""How a checkpoint was trained, as far as it says so itself: batch, rate, processes and length, as they stand in it."""

from __future__ import annotations

import math
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from midway_hub.convert.archive import DTYPES
from midway_hub.convert.records import ConversionError, Record, StoredTensor, printable, unwrap

_WANTED = re.compile(
    r"batch|lr|learning_rate|gpu|world_size|num_nodes|nnodes|num_processes|repeat|epoch|warmup|accum|iter|pairs"
)
_GROUP = ("lr", "initial_lr", "lr_scale", "weight_decay")
_MOST, _LONGEST = 2000, 80
_NUMPY = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u8": "<Q", "u4": "<I", "b1": "<?"}

Plain = str | int | float | bool


def read_training(checkpoint: Mapping[Any, Any], read: Callable[[StoredTensor], torch.Tensor]) -> dict[str, Any]:
    """Read what a checkpoint says of its batch, its learning rate, its processes and its length.

    Nothing is worked out: what the recipe calls a number, and what it means by it, is for the reader to judge. The
    optimizer's rates are those of the last step; its number of steps and the size of the data give the batch.

    Args:
        checkpoint: The checkpoint as `load_data` returns it.
        read: Reads one tensor.

    Returns:
        `args`: values of the recipe by their dotted names; `optimizer`: rates of each group of parameters; `steps`: of
        the optimizer; `epoch`: when it was saved. What the file does not say is left out.
    """
    groups = [_group(group) for group in _listed(_mapped(checkpoint.get("optimizer")).get("param_groups"))]
    found = {
        "args": dict(_settings(checkpoint.get("args"))),
        "optimizer": [group for group in groups if group],
        "steps": _steps(checkpoint.get("optimizer"), read),
        "epoch": _plain(checkpoint.get("epoch")),
    }
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def _settings(args: Any) -> Iterator[tuple[str, Plain]]:
    """Settings by dotted name, outer ones first; a bounded look, as parts of a pickle may hold one another."""
    waiting, looks = deque([("", args)]), _MOST
    while waiting:
        prefix, holder = waiting.popleft()
        for key, value in islice(_mapped(holder).items(), looks):
            looks -= 1
            plain = _plain(value)
            if not isinstance(key, str) or len(key) > _LONGEST:
                continue
            if plain is None:
                waiting.append((f"{prefix}{key}.", value))
            elif _WANTED.search(key.lower()):
                yield printable(prefix + key), plain


def _group(group: Any) -> dict[str, Plain]:
    settings = {name: _plain(_mapped(group).get(name)) for name in _GROUP}
    return {name: value for name, value in settings.items() if value is not None}


def _steps(optimizer: Any, read: Callable[[StoredTensor], torch.Tensor]) -> int | None:
    """Steps that the optimizer has done: the most that any parameter's state says."""
    for state in _mapped(_mapped(optimizer).get("state")).values():
        step = _mapped(state).get("step")
        if isinstance(step, StoredTensor) and step.dtype in DTYPES and step.shape in ((), (1,)):
            try:
                step = float(read(step))
            except ConversionError:  # training state that is damaged is no reason not to convert the weights
                return None
        number = _plain(step)
        if isinstance(number, int | float) and math.isfinite(number):
            return int(number)
    return None


def _mapped(value: Any) -> Mapping[Any, Any]:
    content = unwrap(value)
    return content if isinstance(content, dict) else {}


def _listed(value: Any) -> list[Any]:
    content = unwrap(value)
    return content[:_MOST] if isinstance(content, list) else []


def _plain(value: Any) -> Plain | None:
    """A number or a short text, numpy's scalars too; None for anything else."""
    if isinstance(value, Record) and value.type.name == "scalar" and value.type.module.startswith("numpy."):
        return _numpy_scalar(value)
    content = unwrap(value)
    if isinstance(content, str):
        return printable(content, _LONGEST)
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content if isinstance(content, bool | int | float) else None


def _numpy_scalar(scalar: Record) -> Plain | None:
    match scalar.arguments:
        case (Record(arguments=(str(kind), *_)), raw):
            form = _NUMPY.get(kind)
            data = _bytes(raw)
            if form is not None and data is not None and len(data) == struct.calcsize(form):
                return _plain(struct.unpack(form, data)[0])
    return None


def _bytes(raw: Any) -> bytes | None:
    """Bytes, which pickles of the older protocols write as text in Latin-1 that is to be encoded."""
    match raw:
        case bytes():
            return raw
        case Record(arguments=(str(text), *_)) if str(raw.type) == "_codecs.encode" and len(text) <= _LONGEST:
            return text.encode("latin-1", errors="replace")
    return None
