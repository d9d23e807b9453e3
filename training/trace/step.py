"""One step, written down: modules, losses, optimizer groups, schedules, moving averages, what stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from midway_hub.training._text import text_table
from midway_hub.training.engine.protocol import StepOutput, Trainable
from midway_hub.training.trace.modules import Call, fold, record_calls


def trace_step(trainable: Trainable, batch: Mapping[str, Tensor], *, step: int = 0, width: int = 120) -> str:
    """Run forward and backward once and write down what happened; no weight changes.

    Args:
        trainable: A method, on the CPU.
        batch: One micro-batch as the network takes it.
        step: Which optimizer step to trace: schedules and freezing depend on it.
        width: Characters per line.

    Returns:
        Tables: the batch, modules in the order in which they run, losses with where their formula is, diagnostics,
        optimizer groups, schedules, moving averages, and what gets no gradient.
    """
    network, formulas = trainable.network.train(), getattr(trainable, "formulas", {})
    optimizer = trainable.make_optimizer()
    rates = trainable.schedule(optimizer, step)
    with record_calls(network) as calls:
        output: StepOutput = network(batch)
    torch.stack(list(output.losses.values())).sum().backward()
    clipping = trainable.before_update(step)
    sections: dict[str, tuple[Sequence[str], Sequence[Sequence[object]]]] = {
        f"The batch of step {step}": (("group", "shape", "dtype"), _batch(batch)),
        "Modules, in the order in which they run": (
            ("", "module", "class", "input", "output", "parameters", "times"),
            _modules(fold(calls)),
        ),
        "Losses (their sum is minimised)": (
            ("loss", "value", "formula"),
            _losses(output, formulas),
        ),
        "Diagnostics": (("number", "value"), _numbers({**output.diagnostics, **clipping})),
        "Optimizer groups": (
            ("group", "tensors", "parameters", "learning rate", "weight decay"),
            _groups(optimizer),
        ),
        f"Schedules at step {step}": (("number", "value"), _numbers(rates)),
        "Moving averages": (("average", "follows", "parameters", "keeps of itself"), _averages(network, rates)),
        "Trainable, but without a gradient in this step": (("parameters of", "tensors"), _without_gradient(network)),
        "Frozen, and no moving average": (("parameters of", "tensors"), _frozen(network)),
    }
    network.zero_grad(set_to_none=True)
    trainable.after_rejection(step)
    tables = [text_table(header, rows, title=title, width=width) for title, (header, rows) in sections.items() if rows]
    return "\n\n".join([*tables, _totals(network)])


def _batch(batch: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    return [
        (name, "x".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in batch.items()
    ]


def _modules(calls: list[Call]) -> list[tuple[object, ...]]:
    return [
        (number, call.name, call.kind, call.inputs, call.outputs, f"{call.parameters:,}", call.times)
        for number, call in enumerate(calls, start=1)
    ]


def _losses(output: StepOutput, formulas: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(name, f"{value.item():.5g}", _formula(name, formulas)) for name, value in output.losses.items()]


def _formula(loss: str, formulas: Mapping[str, Any]) -> str:
    function = formulas.get(loss, formulas.get(loss.partition("_")[0]))
    if function is None:
        return "-"
    first = (function.__doc__ or "").strip().splitlines()[0]
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}: {first}"


def _numbers(values: Mapping[str, Tensor | float]) -> list[tuple[str, str]]:
    return [(name, f"{float(value):.5g}") for name, value in values.items()]


def _groups(optimizer: Optimizer) -> list[tuple[object, ...]]:
    return [
        (
            group.get("name", "-"),
            len(group["params"]),
            f"{sum(parameter.numel() for parameter in group['params']):,}",
            f"{group['lr']:.4g}",
            f"{group['weight_decay']:.4g}",
        )
        for group in optimizer.param_groups
    ]


def _averages(network: nn.Module, rates: Mapping[str, float]) -> list[tuple[str, ...]]:
    names = {module: name for name, module in network.named_modules()}
    momentum = next((f"{value:.6g}" for name, value in rates.items() if "momentum" in name), "-")
    return [
        (names[average], names[source], f"{sum(p.numel() for p in average.parameters()):,}", momentum)
        for average, source in _followed(network).items()
    ]


def _without_gradient(network: nn.Module) -> list[tuple[str, int]]:
    return _by_owner(name for name, p in network.named_parameters() if p.requires_grad and p.grad is None)


def _frozen(network: nn.Module) -> list[tuple[str, int]]:
    averaged = {id(parameter) for average in _followed(network) for parameter in average.parameters()}
    return _by_owner(name for name, p in network.named_parameters() if not p.requires_grad and id(p) not in averaged)


def _followed(network: nn.Module) -> Mapping[nn.Module, nn.Module]:
    follows = getattr(network, "follows", None)
    return follows() if callable(follows) else {}


def _by_owner(names: Iterator[str]) -> list[tuple[str, int]]:
    """Count parameters by the module that holds them."""
    counts: dict[str, int] = {}
    for name in names:
        owner = name.rpartition(".")[0] or name
        counts[owner] = counts.get(owner, 0) + 1
    return list(counts.items())


def _totals(network: nn.Module) -> str:
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    other = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    return f"{trained / 1e6:.2f} M parameters are trained, {other / 1e6:.2f} M are averaged or frozen."
