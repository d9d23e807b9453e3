"""A diagnosis as text: numbers first, then what stands in the way, then what helps most."""

from __future__ import annotations

from collections.abc import Mapping

from midway_hub.training._text import text_table
from midway_hub.training.doctor.diagnosis import Diagnosis
from midway_hub.training.doctor.forecast import Measured, RunPlan


def summarise(
    diagnosis: Diagnosis, measured: Measured, plan: RunPlan, *, readers: Mapping[str, float | str] | None = None
) -> str:
    """Write what was measured, what follows, and what to change.

    Args:
        diagnosis: Of `measured` and `plan`.
        measured: The measured times and sizes.
        plan: The run.
        readers: Pairs per second of every video reader, or why it cannot be used.
    """
    now = diagnosis.forecast
    parts = [text_table(("part", "time", ""), _measured(measured), title="Measured on this machine")]
    if readers:
        rows = [
            (name, f"{rate:.2f} pairs/s a core" if isinstance(rate, float) else rate) for name, rate in readers.items()
        ]
        parts.append(text_table(("reader", "rate"), rows, title="Video readers on these files"))
    expected = [
        ("one step", f"{now.step:.3g} s", f"data {now.data:.3g} s, device {now.compute:.3g} s"),
        ("waiting for data", f"{now.wait:.0%}", f"with {plan.workers} workers a process"),
        ("pairs per second", f"{plan.pairs / now.step:.1f}", f"{plan.pairs} pairs a step"),
        ("the whole run", _duration(now.hours), f"{plan.steps:,} steps"),
        ("memory", _gib(now.memory), f"of {_gib(measured.memory)}, {plan.micro_batch} pairs at a time"),
        ("checkpoints", _gib(now.disk), f"{plan.checkpoints} kept; {_gib(measured.free_disk)} are free"),
    ]
    parts.append(text_table(("what", "expected", ""), expected, title="The run"))
    parts += [f"Cannot work: {problem}." for problem in diagnosis.problems]
    parts.append(_advice(diagnosis))
    return "\n\n".join(parts)


def _advice(diagnosis: Diagnosis) -> str:
    if not diagnosis.changes:
        return "Nothing that was tried makes the run notably faster."
    best, hours = diagnosis.changes[0], diagnosis.forecast.hours
    rows = [
        (
            change.what,
            change.how,
            f"{change.factor:.1f}x",
            _duration(change.forecast.hours),
            f"{change.forecast.wait:.0%}",
        )
        for change in diagnosis.changes
    ]
    lines = [
        f"Helps most: {best.what} ({best.how}): {_duration(hours)} -> {_duration(best.forecast.hours)}.",
        text_table(("change", "how", "faster", "the whole run", "waiting for data"), rows),
    ]
    if len(diagnosis.changes) > 1:
        lines.append(f"All of them together: {_duration(diagnosis.together.hours)}.")
    return "\n".join(lines)


def _measured(measured: Measured) -> list[tuple[str, str, str]]:
    timed = [
        ("reading", measured.reading, "on one core"),
        ("reading from a pack", measured.reading_packed, "on one core: these frames as JPEG, short side 360"),
        ("making views", measured.augmenting, "on one core"),
        ("making views on the device", measured.augmenting_on_device, "a batch at a time"),
        ("training step", measured.step, "on one device"),
        ("training step, bfloat16", measured.step_bf16, "on one device"),
    ]
    return [
        (name, f"{1000 * seconds:.3g} ms a pair", f"{1 / seconds:.1f} pairs/s {where}" if seconds else where)
        for name, seconds, where in timed
        if seconds is not None
    ]


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _gib(count: float | None) -> str:
    return "an unknown amount" if count is None else f"{count / 2**30:.2f} GiB"
