"""What stands in the way of a run, and which change helps most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from midway_hub.training.doctor.forecast import Forecast, Measured, RunPlan, forecast

WORTH_IT = 1.05
"""A change is only recommended if the run gets faster by more than this factor."""

SAFE_SHARE = 0.9
"""Share of memory or disk that a run may take."""


@dataclass(frozen=True)
class Change:
    """A change of the plan, what it gives, and how to make it."""

    what: str
    how: str
    forecast: Forecast
    factor: float


@dataclass(frozen=True)
class Diagnosis:
    """What is to be expected, what stands in the way, and what helps.

    Attributes:
        forecast: The plan as it is.
        problems: What makes the run impossible, with what to do; empty if nothing does.
        changes: What makes it faster by itself, the most helpful first; empty if nothing that was measured does.
        together: The plan with all of `changes`.
    """

    forecast: Forecast
    problems: tuple[str, ...]
    changes: tuple[Change, ...]
    together: Forecast


def diagnose(measured: Measured, plan: RunPlan) -> Diagnosis:
    """Work out what a run costs and which change helps most; a pure function of its arguments."""
    now = forecast(measured, plan)
    tried = [(what, how, changed, forecast(measured, changed)) for what, how, changed in _possible(measured, plan)]
    helps = [(Change(what, how, then, now.hours / then.hours), changed) for what, how, changed, then in tried]
    helps = sorted((item for item in helps if item[0].factor > WORTH_IT), key=lambda item: -item[0].factor)
    return Diagnosis(
        forecast=now,
        problems=tuple(_problems(measured, plan, now)),
        changes=tuple(change for change, _ in helps),
        together=forecast(measured, _all_of(plan, [changed for _, changed in helps])),
    )


def _possible(measured: Measured, plan: RunPlan) -> Iterator[tuple[str, str, RunPlan]]:
    """Changes of one thing each, among those whose effect was measured: what, how, and the plan then."""
    if not plan.packed and measured.reading_packed is not None:
        yield "pack the videos", "`pack`, then data.source=pack", replace(plan, packed=True)
    most = max(1, int(measured.cores / plan.processes) - 1)
    if most > plan.workers:
        yield f"{most} workers", f"data.workers={most}", replace(plan, workers=most)
    if plan.augment == "cpu" and measured.augmenting_on_device is not None:
        yield "augment on the device", "data.augment=device", replace(plan, augment="device")
    if plan.precision == "fp32" and measured.step_bf16 is not None:
        yield "bfloat16", "engine.precision=bf16", replace(plan, precision="bf16")


def _all_of(plan: RunPlan, changed: Sequence[RunPlan]) -> RunPlan:
    """The plan with what every one of `changed` does differently."""
    before = asdict(plan)
    news = [{name: value for name, value in asdict(other).items() if value != before[name]} for other in changed]
    return replace(plan, **{name: value for new in news for name, value in new.items()})


def _problems(measured: Measured, plan: RunPlan, now: Forecast) -> Iterator[str]:
    if measured.memory is not None and now.memory > SAFE_SHARE * measured.memory:
        room = SAFE_SHARE * measured.memory - measured.memory_fixed
        fits = int(room // measured.memory_per_pair) if measured.memory_per_pair else 0
        have, want = _gib(measured.memory), _gib(now.memory)
        if fits < 1:
            yield f"memory: the weights with one pair need more than the {have} there are; take a smaller model"
        else:
            accumulate = -(-plan.pairs // (plan.processes * fits))
            yield (
                f"memory: {plan.micro_batch} pairs at a time need {want}, there are {have}; {fits} pairs fit: set "
                f"engine.accumulate={accumulate}, which changes nothing but what drop path draws"
            )
    if measured.free_disk is not None and now.disk > SAFE_SHARE * measured.free_disk:
        yield (
            f"disk: {plan.checkpoints} checkpoints take {_gib(now.disk)}, {_gib(measured.free_disk)} are free; keep "
            "fewer, or put the run directory elsewhere"
        )


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
