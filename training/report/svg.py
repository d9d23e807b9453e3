"""Line plots as SVG, written by hand so that a page needs neither a script nor a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from midway_hub.training.report.curves import Plot

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 10, 26


@dataclass(frozen=True)
class Mark:
    """A step at which something happened: drawn across every plot.

    Attributes:
        step: When.
        kind: `"resume"` or `"incident"`.
        text: What, for the reader who points at it.
    """

    step: int
    kind: str
    text: str


def draw(plot: Plot, marks: Sequence[Mark] = ()) -> str:
    """Draw a plot.

    Args:
        plot: Its curves hold at least one point.
        marks: What happened in the run.

    Returns:
        An `<svg>` element; colours come from the page's style sheet.
    """
    points = [point for curve in plot.curves for point in (*curve.raw, *curve.smooth)]
    axes = _Axes.around(points, plot)
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(plot.title, quote=True)}'>"
        f"{_grid(axes)}{_reference(axes, plot)}{''.join(_mark(axes, mark) for mark in marks)}"
        f"{''.join(_lines(axes, curve.raw, curve.smooth, curve.colour) for curve in plot.curves)}</svg>"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Write a number in few characters: `12.3`, `0.0042`, `5e-07`, `1.2M`."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Axes:
    left: float
    right: float
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]], plot: Plot) -> _Axes:
        steps, values = [step for step, _ in points], [value for _, value in points]
        if plot.reference:
            values.append(plot.reference[1])
        low, high = min(values), max(values)
        if plot.logarithmic:
            low, high = math.log10(low), math.log10(high)
        flat = high - low <= 1e-6 * abs(high)
        margin = (0.05 * abs(high) or 1.0) if flat else 0.06 * (high - low)
        left, right = min(steps), max(steps)
        return cls(left, right if right > left else left + 1, low - margin, high + margin, plot.logarithmic)

    def x(self, step: float) -> float:
        return LEFT + (step - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def levels(self) -> list[float]:
        if not self.logarithmic:
            return ticks(self.low, self.high)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        factors = (1, 2, 5) if self.high - self.low < 2 else (1,)
        found = [factor * 10.0**power for power in powers for factor in factors]
        return [value for value in found if self.low <= math.log10(value) <= self.high]


def _grid(axes: _Axes) -> str:
    parts = []
    for value in axes.levels():
        y = axes.y(value)
        parts.append(f"<path class='grid' d='M{LEFT} {y:.1f}H{WIDTH - RIGHT}'/>")
        parts.append(f"<text class='tick' x='{LEFT - 6}' y='{y + 3.5:.1f}' text-anchor='end'>{short(value)}</text>")
    for step in ticks(axes.left, axes.right):
        parts.append(
            f"<text class='tick' x='{axes.x(step):.1f}' y='{HEIGHT - 8}' text-anchor='middle'>{short(step)}</text>"
        )
    return "".join(parts)


def _reference(axes: _Axes, plot: Plot) -> str:
    if plot.reference is None:
        return ""
    text, value = plot.reference
    y = axes.y(value)
    return (
        f"<path class='reference' d='M{LEFT} {y:.1f}H{WIDTH - RIGHT}'/>"
        f"<text class='tick' x='{WIDTH - RIGHT}' y='{y + 13:.1f}' text-anchor='end'>{escape(text)}</text>"
    )


def _mark(axes: _Axes, mark: Mark) -> str:
    if not axes.left <= mark.step <= axes.right:
        return ""
    x = axes.x(mark.step)
    hint = f"<title>{escape(mark.text)}</title>"
    return f"<path class='{escape(mark.kind, quote=True)}' d='M{x:.1f} {TOP}V{HEIGHT - BOTTOM}'>{hint}</path>"


def _lines(axes: _Axes, raw: Sequence[tuple[float, float]], smooth: Sequence[tuple[float, float]], colour: int) -> str:
    faint = " faint" if smooth else ""
    drawn = _line(axes, raw, f"line c{colour}{faint}")
    return drawn + (_line(axes, smooth, f"line c{colour}") if smooth else "")


def _line(axes: _Axes, points: Sequence[tuple[float, float]], kind: str) -> str:
    if len(points) == 1:
        (step, value), *_ = points
        return f"<circle class='{kind} dot' cx='{axes.x(step):.1f}' cy='{axes.y(value):.1f}' r='3'/>"
    path = " ".join(f"{axes.x(step):.1f},{axes.y(value):.1f}" for step, value in points)
    return f"<polyline class='{kind}' points='{path}'/>"
