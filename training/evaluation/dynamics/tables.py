"""Evaluations of coarse flow as a table: one row per way of reading it."""

from __future__ import annotations

from midway_hub.training.evaluation.dynamics.evaluate import DynamicsEvaluation, ReaderResult
from midway_hub.training.evaluation.dynamics.scores import QUANTITIES, CoarseScores
from midway_hub.training.evaluation.tables import Rows, part, shown

HITS = QUANTITIES[1:]


def dynamics_tables(result: DynamicsEvaluation) -> list[Rows]:
    """Return the tables of an evaluation, the most important one first."""
    return [score_table(result), region_table(result)]


def score_table(result: DynamicsEvaluation) -> Rows:
    """Return one row per way: error in pixels, over that of zero motion where that was measured, and hit rates."""
    still = next((found for found in result.readers.values() if found.settings["kind"] == "zero motion"), None)
    reference = None if still is None else next(iter(still.ways.values()))["all"].epe
    rows = []
    for found in result.readers.values():
        for way, regions in found.ways.items():
            scores = regions["all"]
            ratio = shown(scores.epe / reference) if reference else "-"
            hits = [shown(scores.hits[name]) for name in HITS]
            rows.append([*_named(found, way), shown(scores.epe), ratio, *hits, f"{found.seconds:.2g}"])
    size = "own size" if result.short_side is None else f"short side {result.short_side}"
    hidden = "not occluded" if result.occlusions else "inside the frame (occlusions unknown)"
    title = f"{result.dataset}, {part(result.pairs, result.of, 'pairs')}, {size}; patch centres that are {hidden}"
    header = ["model", "gates", "read off", "EPE", "of zero's", *(f"hit {name[4:]} %" for name in HITS), "s/pair"]
    return Rows(title, header, rows)


def region_table(result: DynamicsEvaluation) -> Rows:
    """Return one row per way: the half that it is most sure of, and patches that move by more than half a patch."""
    rows = [
        [*_named(found, way), *_brief(regions["confident"]), *_brief(regions["moving"])]
        for found in result.readers.values()
        for way, regions in found.ways.items()
    ]
    header = ["model", "gates", "read off", "sure: EPE", "hit 1 %", "moving: EPE", "hit 1 %"]
    return Rows("the half of highest forward-backward confidence, and what moves by over half a patch", header, rows)


def _named(found: ReaderResult, way: str) -> list[str]:
    read_off = way if "gates" in found.settings else "features" if way == "-" else f"features, {way}"
    return [found.model, found.settings.get("gates", "-"), "-" if found.model == "zero motion" else read_off]


def _brief(scores: CoarseScores) -> list[str]:
    return [shown(scores.epe), shown(scores.hits["hit_1"])]
