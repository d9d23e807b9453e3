"""Flow evaluations as tables: one row per estimator, one row per sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midway_hub.training.evaluation.flow.evaluate import FlowEvaluation
from midway_hub.training.evaluation.tables import Rows, part, shown

ERRORS = {"EPE": "epe", "L1": "l1", "bad 1": "bad_1", "bad 3": "bad_3", "bad 5": "bad_5", "Fl-all": "fl_all"}
REGIONS = {
    "s0-10": "speed_0_10/epe",
    "s10-40": "speed_10_40/epe",
    "s40+": "speed_40/epe",
    "visible": "visible/epe",
    "occluded": "occluded/epe",
}


def flow_tables(result: FlowEvaluation) -> list[Rows]:
    """Return the tables of an evaluation, the most important one first; sequences only where there are several."""
    sequences = next(iter(result.estimators.values())).numbers.pairs
    return [error_table(result), region_table(result), *([sequence_table(result)] if len(sequences) > 1 else [])]


def error_table(result: FlowEvaluation) -> Rows:
    """Return one row per estimator: errors pooled over pixels, in pixels and percent, and how they were made."""
    rows = [
        [
            name,
            *(shown(found.numbers.pooled[key]) for key in ERRORS.values()),
            shown(found.numbers.per_image["epe"]),
            f"{found.seconds:.2g}",
            how(found.settings),
        ]
        for name, found in result.estimators.items()
    ]
    title = f"{result.dataset}, {part(result.pairs, result.of, 'pairs')}, {', '.join(result.resolutions)} px"
    return Rows(title, ["estimator", *ERRORS, "EPE/image", "s/pair", "made on"], rows)


def region_table(result: FlowEvaluation) -> Rows:
    """Return one row per estimator: EPE by true speed in pixels, and of visible and occluded pixels."""
    rows = [
        [name, *(shown(found.numbers.pooled[key]) for key in REGIONS.values())]
        for name, found in result.estimators.items()
    ]
    return Rows("EPE by true speed, and where pixels stay visible", ["estimator", *REGIONS], rows)


def sequence_table(result: FlowEvaluation) -> Rows:
    """Return one row per sequence: its pairs, and every estimator's EPE pooled over its pixels."""
    first = next(iter(result.estimators.values())).numbers
    rows = [
        [
            sequence or "-",
            str(pairs),
            *(shown(found.numbers.sequences[sequence]["epe"]) for found in result.estimators.values()),
        ]
        for sequence, pairs in first.pairs.items()
    ]
    return Rows("EPE by sequence", ["sequence", "pairs", *result.estimators], rows)


def how(settings: Mapping[str, Any]) -> str:
    """Say at which resolution and in which tiles an estimate was made."""
    size = f"short side {settings['short_side']}" if settings.get("short_side") else "own size"
    if not settings.get("tile"):
        return size
    height, width = settings["tile"]
    return f"{size}, {height}x{width} tiles, overlap {settings['overlap']:g}"
