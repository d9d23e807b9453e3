"""What the tables of evaluations share."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rows:
    """A table: title, header, and rows of as many cells."""

    title: str
    header: list[str]
    rows: list[list[str]]


def part(measured: int, of: int, what: str) -> str:
    """Say how much of a data set was measured."""
    return f"{measured} {what}" if measured == of else f"{measured} of {of} {what}"


def shown(value: float) -> str:
    """Write a number with two decimals; `-` where nothing counts."""
    return "-" if math.isnan(value) else f"{value:.2f}"
