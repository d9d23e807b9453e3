"""Which modules run in a forward pass, in which order, and on what shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList


@dataclass(frozen=True)
class Call:
    """A module that ran, or several alike that ran one after the other.

    Attributes:
        name: Its name; `blocks.{0..11}` for several.
        kind: Its class.
        inputs: Shape of its first tensor.
        outputs: Shape of its first output.
        parameters: Numbers in it, of all of them together.
        times: How often it ran in a row.
    """

    name: str
    kind: str
    inputs: str
    outputs: str
    parameters: int
    times: int = 1


@contextmanager
def record_calls(network: nn.Module) -> Iterator[list[Call]]:
    """Collect the calls of a network's landmarks: its blocks, embeddings, norms and heads, but not what is in them."""
    calls: list[Call] = []
    hooks = [
        module.register_forward_hook(_recorder(name, calls), with_kwargs=True) for name, module in landmarks(network)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def landmarks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield names and modules to watch, from the outside in: those that hold no stack of blocks."""
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if any(map(_is_stack, child.modules())):
            yield from landmarks(child, f"{full}.")
        elif any(True for _ in child.parameters()):
            yield full, child


def _is_stack(module: nn.Module) -> bool:
    """Whether a module only holds blocks that others run."""
    kinds = {type(child) for child in module.children()}
    if isinstance(module, ParametrizationList) or kinds <= {ParametrizationList}:
        return False
    return isinstance(module, nn.ModuleDict | nn.ModuleList) or (isinstance(module, nn.Sequential) and len(kinds) == 1)


def fold(calls: Sequence[Call]) -> list[Call]:
    """Join calls in a row that differ in nothing but a number in their name, or in nothing at all."""
    folded: list[Call] = []
    numbers: list[int] = []
    for call in calls:
        last = folded[-1] if folded else None
        if last is not None and _pattern(last) == _pattern(call):
            times, number = last.times + 1, _number(call)
            fresh = number not in numbers
            numbers += [number] if fresh else []
            parameters = last.parameters + (call.parameters if fresh else 0)
            folded[-1] = replace(last, name=_joined(call.name, numbers), parameters=parameters, times=times)
        else:
            folded.append(call)
            numbers = [_number(call)]
    return folded


def _recorder(name: str, calls: list[Call]) -> Any:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        count = sum(parameter.numel() for parameter in module.parameters())
        calls.append(Call(name, type(module).__name__, _shape((args, kwargs)), _shape(output), count))

    return record


def _shape(value: Any) -> str:
    """Shape of the first tensor in nested data."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((shape for shape in map(_shape, items) if shape), "")


def _pattern(call: Call) -> tuple[str, str, str, str]:
    name = re.sub(r"\.\{[\d., ]+\}", ".#", re.sub(r"\.\d+$", ".#", call.name))
    return name, call.kind, call.inputs, call.outputs


def _number(call: Call) -> int:
    found = re.search(r"\.(\d+)$", call.name)
    return int(found[1]) if found else -1


def _joined(name: str, numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return name
    stem = name.rpartition(".")[0]
    in_a_row = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{stem}.{{{numbers[0]}..{numbers[-1]}}}" if in_a_row else f"{stem}.{{{', '.join(map(str, numbers))}}}"
