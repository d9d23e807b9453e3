"""Evaluations of coarse flow as a table: one row per way of reading it."""

from __future__ import annotations

from collections.abc import Iterator

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
    for label, found, regions in _ways(result):
        scores = regions["all"]
        ratio = shown(scores.epe / reference) if reference else "-"
        rows.append([label, shown(scores.epe), ratio, *(shown(scores.hits[name]) for name in HITS), _time(found)])
    size = "own size" if result.short_side is None else f"short side {result.short_side}"
    hidden = "not occluded" if result.occlusions else "inside the frame (occlusions unknown)"
    title = f"{result.dataset}, {part(result.pairs, result.of, 'pairs')}, {size}; centres of patches that stay {hidden}"
    header = ["flow from", "EPE", "/zero", *(f"hit {name[4:]}" for name in HITS), "s/pair"]
    return Rows(title, header, rows)


def region_table(result: DynamicsEvaluation) -> Rows:
    """Return one row per way: the half that it is most sure of, and patches that move by more than half a patch."""
    rows = [
        [label, *_brief(regions["confident"]), *_brief(regions["moving"]), f"{regions['moving'].patches:.0f}"]
        for label, _, regions in _ways(result)
    ]
    header = ["flow from", "sure: EPE", "hit 1", "moving: EPE", "hit 1", "patches"]
    return Rows("the half of highest forward-backward confidence, and what moves by over half a patch", header, rows)


def _ways(result: DynamicsEvaluation) -> Iterator[tuple[str, ReaderResult, dict[str, CoarseScores]]]:
    """Yield every way's label, reader and scores by region; the network is named where there are several."""
    networks = {found.model for found in result.readers.values() if found.settings["kind"] != "zero motion"}
    for found in result.readers.values():
        gates = {"on": ", gates on", "off": ", gates off"}.get(found.settings.get("gates", ""), "")
        kind = {"zero motion": "zero motion", "nearest-feature matching": "features"}.get(found.settings["kind"], "")
        prefix = f"{found.model}: " if len(networks) > 1 and found.model in networks else ""
        for way, regions in found.ways.items():
            read_off = " ".join(filter(None, (kind, way.replace(",", "").strip("-"))))
            yield f"{prefix}{read_off}{gates}", found, regions


def _brief(scores: CoarseScores) -> list[str]:
    return [shown(scores.epe), shown(scores.hits["hit_1"])]


def _time(found: ReaderResult) -> str:
    return f"{found.seconds:.2g}" if found.seconds >= 0.01 else "0"
