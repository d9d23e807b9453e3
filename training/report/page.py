"""The page of a run, written from its directory alone: no script, nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path

from midway_hub.training.report.curves import Plot, plots_of
from midway_hub.training.report.overview import incidents, marks, overview
from midway_hub.training.report.record import RunRecord, flatten, read_run
from midway_hub.training.report.sheets import Picture, sheets_of
from midway_hub.training.report.style import STYLE
from midway_hub.training.report.svg import Mark, draw, short
from midway_hub.training.report.tables import table

REPORT = "report.html"


def write_report(
    run_dir: str | Path, *, sheets: Mapping[str, Picture] | None = None, out: str | Path | None = None
) -> Path:
    """Write the page of a run; it may still be going on, have crashed, or have logged nothing yet.

    Args:
        run_dir: The run directory (`config.yaml`, `run.json`, `data.json`, `metrics.jsonl`, and
            `derived.json` if there is one).
        sheets: Caption -> contact sheet of sample pairs and crops. The pictures under `samples/` of the run directory
            are shown in any case.
        out: Where to; by default `report.html` in the run directory.

    Returns:
        The page. Everything is inside it, so it can be sent by mail.

    Raises:
        FileNotFoundError: The directory is none of a run.
    """
    record = read_run(run_dir)
    sections = {
        "Incidents": incidents(record),
        **{title: _plots(plots, marks(record)) for title, plots in plots_of(record).items()},
        "Samples": sheets_of(record.directory, sheets or {}),
        "Data": _data(record),
        "Derived numbers": _derived(record),
        "Settings": _settings(record),
    }
    sections = {title: body for title, body in sections.items() if body}
    path = Path(out) if out is not None else record.directory / REPORT
    whole = path.with_name(f".{path.name}.part")
    whole.write_text(_page(record, sections), encoding="utf-8")
    whole.replace(path)
    return path


def _page(record: RunRecord, sections: Mapping[str, str]) -> str:
    title = escape(record.directory.resolve().name)
    links = "".join(f"<a href='#{_anchor(name)}'>{escape(name)}</a>" for name in sections)
    bodies = "".join(
        f"<section id='{_anchor(name)}'><h2>{escape(name)}</h2>{body}</section>" for name, body in sections.items()
    )
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{STYLE}</style></head>"
        f"<body><main>{overview(record)}<nav>{links}</nav>{bodies}"
        f"<p class='soft'>Written {written} from {escape(str(record.directory))}.</p></main></body></html>\n"
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _plots(plots: list[Plot], happened: list[Mark]) -> str:
    return f"<div class='plots'>{''.join(_figure(plot, happened) for plot in plots)}</div>"


def _figure(plot: Plot, happened: list[Mark]) -> str:
    scale = " <span class='soft'>(log scale)</span>" if plot.logarithmic else ""
    legend = "".join(
        f"<li title='{escape(curve.name, quote=True)}'><i style='background:var(--c{curve.colour})'></i>"
        f"{escape(curve.label)} <b>{short(curve.last)}</b></li>"
        for curve in plot.curves
    )
    return (
        f"<figure class='plot'><h3>{escape(plot.title)}{scale}</h3>{draw(plot, happened)}"
        f"<ul class='legend'>{legend}</ul></figure>"
    )


def _data(record: RunRecord) -> str:
    facts = flatten(record.data.get("fingerprint") or {})
    body = table(("fingerprint", ""), [(name, value) for name, value in facts.items()]) if facts else ""
    rejected = record.data.get("rejected") or []
    if not rejected:
        return body + ("<p>No file was rejected.</p>" if record.data else "")
    rows = [(item.get("file", "?"), item.get("reason", "?")) for item in rejected if isinstance(item, Mapping)]
    return (
        f"{body}<details><summary>{len(rejected)} files were rejected</summary>"
        f"{table(('file', 'reason'), rows)}</details>"
    )


def _derived(record: RunRecord) -> str:
    rows = [(item.get("name", "?"), item.get("value"), item.get("reason", "")) for item in record.derived]
    return table(("number", "value", "because"), rows) if rows else ""


def _settings(record: RunRecord) -> str:
    versions = record.run.get("versions") or {}
    blocks = {"Every setting": flatten(record.config), "Versions": versions if isinstance(versions, Mapping) else {}}
    return "".join(
        f"<details><summary>{title}</summary>{table(('name', 'value'), list(values.items()))}</details>"
        for title, values in blocks.items()
        if values
    )
