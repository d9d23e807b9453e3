"""Which metrics share a plot, and how a long noisy series becomes a line that can be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from midway_hub.training.report.naming import GROUPS, SECTIONS, group_of, heading_of, label_of
from midway_hub.training.report.record import RunRecord, flatten

WIDEST_LINEAR = 30.0
"""From this ratio of the largest to the smallest value on, an axis is logarithmic."""

MOST_POINTS = 500
SMOOTHED_OVER = 0.02
"""Share of the run that the smoothed line averages over."""

COLOURS = 8

_CLOCKS = {"time", "timestamp", "epoch"}
_EXACT = {"schedules", "probes"}
_MAY_BE_LOGARITHMIC = {"total", "dynamics", "gradients", "others"}


@dataclass(frozen=True)
class Curve:
    """One metric as a line.

    Attributes:
        name: The metric.
        label: What tells it apart from the others of its plot.
        colour: Number of its colour, from 0.
        raw: Points (step, value), thinned so that every peak is still there.
        smooth: Points (step, value) of the running mean; empty where the metric is not noisy.
        last: Its last value.
    """

    name: str
    label: str
    colour: int
    raw: list[tuple[float, float]]
    smooth: list[tuple[float, float]]
    last: float


@dataclass(frozen=True)
class Plot:
    """Curves that share axes."""

    title: str
    curves: list[Curve]
    logarithmic: bool
    reference: tuple[str, float] | None = None


def plots_of(record: RunRecord) -> dict[str, list[Plot]]:
    """Sort a run's metrics into plots.

    Args:
        record: The run.

    Returns:
        Section title -> its plots; a metric is in exactly one plot.
    """
    members: dict[str, list[str]] = {group: [] for group, _ in GROUPS}
    for name, values in record.series.items():
        if name not in _CLOCKS and any(map(math.isfinite, values)):
            members[group_of(name)].append(name)
    sections = {
        title: [
            _plot(record, group, heading, names) for group in groups for heading, names in _split(group, members[group])
        ]
        for title, groups in SECTIONS.items()
    }
    return {title: plots for title, plots in sections.items() if plots}


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Average every value with those before it, weighted by `exp(-distance / window)`; NaN is left out.

    Args:
        values: The series.
        window: Over how many values, at least 1.

    Returns:
        As many values; NaN where `values` is NaN.
    """
    decay = math.exp(-1 / window)
    total = weight = 0.0
    means = []
    for value in values:
        if math.isnan(value):
            means.append(math.nan)
            continue
        total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return means


def thin(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Keep about `most` points: the lowest and the highest of every stretch, and the last one."""
    if len(points) <= most:
        return list(points)
    kept = []
    stretches = most // 2
    for number in range(stretches):
        part = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _split(group: str, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Headings and metrics of a group's plots: like beside like, unlike things in plots of their own."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(heading_of(group, name), []).append(name)
    for heading, members in grouped.items():
        for start in range(0, len(members), COLOURS):
            yield heading, members[start : start + COLOURS]


def _plot(record: RunRecord, group: str, heading: str, names: list[str]) -> Plot:
    curves = [_curve(record, group, name, colour) for colour, name in enumerate(names)]
    values = [value for curve in curves for _, value in curve.raw]
    wide = min(values) > 0 and max(values) / min(values) > WIDEST_LINEAR
    reference = _collapse(record) if group == "dino" else None
    return Plot(heading, curves, logarithmic=wide and group in _MAY_BE_LOGARITHMIC, reference=reference)


def _curve(record: RunRecord, group: str, name: str, colour: int) -> Curve:
    logged = [(s, v) for s, v in zip(record.steps, record.series[name], strict=True) if math.isfinite(v)]
    window = round(SMOOTHED_OVER * len(logged))
    smooth: list[tuple[float, float]] = []
    if group not in _EXACT and window >= 2:
        means = running_mean([value for _, value in logged], window)
        smooth = thin([(step, mean) for (step, _), mean in zip(logged, means, strict=True)])
    return Curve(name, label_of(group, name), colour, raw=thin(logged), smooth=smooth, last=logged[-1][1])


def _collapse(record: RunRecord) -> tuple[str, float] | None:
    """ln(prototypes): where the DINO loss stays when every view gets the same answer."""
    for name, value in flatten(record.config).items():
        if name.endswith("prototypes") and isinstance(value, int) and value > 1:
            return f"collapse: ln({value})", math.log(value)
    return None
