"""The top of a run's page: state, progress, the few numbers that matter, and what went wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from midway_hub.training.report.record import RunRecord
from midway_hub.training.report.svg import Mark, short
from midway_hub.training.report.tables import table

SILENT_AFTER = 600.0
"""Seconds without a heartbeat after which a run that says it goes on is said to be silent."""

_LOOKS = {"finished": "good", "running": "", "interrupted": ""}


def overview(record: RunRecord) -> str:
    """Write the header of a page: name, state, progress bar, facts and warnings."""
    run = record.run
    state = str(run.get("state", "unknown"))
    look = _LOOKS.get(state, "bad")
    step, steps = current_step(record), planned_steps(record)
    done = min(1.0, step / steps) if steps else 0.0
    progress = f"step {step:,} of {steps:,} ({done:.1%})" if steps else f"step {step:,}"
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(record) if value
    )
    warnings = "".join(f"<p class='warning'>{escape(warning)}</p>" for warning in _warnings(record))
    return (
        f"<h1>{escape(record.directory.resolve().name)}<span class='state {look}'>{escape(state)}</span></h1>"
        f"<div class='bar'><div style='width:{100 * done:.1f}%'></div></div><p class='soft'>{progress}</p>"
        f"<dl class='facts'>{facts}</dl>{_oddities(record)}{warnings}"
    )


def incidents(record: RunRecord) -> str:
    """Write the table of what happened to the run: steps not taken, signals, resumes; empty if nothing did."""
    rows = [
        (number, kind, text) for number, kind, text in sorted(_happened(record), key=lambda item: (item[0], item[1]))
    ]
    return table(("step", "what", "detail"), rows) if rows else ""


def marks(record: RunRecord) -> list[Mark]:
    """Return what to draw across the plots."""
    return [
        Mark(step, "resume" if kind == "resumed" else "incident", f"step {step}: {kind}. {text}")
        for step, kind, text in _happened(record)
    ]


def current_step(record: RunRecord) -> int:
    """Return the last step that the run or its log tells of."""
    told = _beat(record).get("step")
    return max([*record.steps[-1:], told if isinstance(told, int) else 0])


def planned_steps(record: RunRecord) -> int | None:
    """Return the length of the whole run in optimizer steps, if it is known."""
    for place in (record.run, record.config):
        if isinstance(place.get("steps"), int) and place["steps"] > 0:
            return place["steps"]
    return None


def pairs_per_step(record: RunRecord) -> int | None:
    """Return the frame pairs (or pictures) of one optimizer step, if the configuration says so."""
    data = _section(record, "data")
    if isinstance(data.get("batch_size"), int):
        return data["batch_size"]
    visits, pairs = data.get("visits_per_step"), data.get("pairs_per_visit")
    return visits * pairs if isinstance(visits, int) and isinstance(pairs, int) else None


def devices(record: RunRecord) -> str:
    """Return what the run runs on: `2 x NVIDIA H200`."""
    names = record.run.get("devices")
    counts = Counter(map(str, names)) if isinstance(names, list) else {}
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())


def compat_switches(record: RunRecord) -> list[str]:
    """Return the names of the `compat.*` switches that are on."""
    return [name for name, on in _section(record, "compat").items() if on is True]


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    run, versions = record.run, record.run.get("versions")
    yield "recipe", str(run.get("recipe") or record.config.get("recipe") or "")
    loss, pairs = record.last("loss"), pairs_per_step(record)
    yield "last loss", "" if loss is None else short(loss)
    yield "devices", devices(record)
    yield "precision", str(_section(record, "engine").get("precision") or "")
    yield "pairs seen", f"{pairs * current_step(record):,}" if pairs else ""
    yield "seed", str(run.get("seed", record.config.get("seed", "")))
    yield "started", _moment(run.get("started"))
    yield "last sign of life", _moment(_beat(record).get("time"))
    yield "resumes", str(len(_list(run.get("resumes"))))
    if isinstance(versions, Mapping):
        yield from ((name, str(versions[name])) for name in ("midway-hub", "torch") if name in versions)


def _oddities(record: RunRecord) -> str:
    switches = compat_switches(record)
    names = ", ".join(f"<code>{escape(name)}</code>" for name in switches) or "none"
    return f"<p class='soft oddities'>Oddities of the released recipe that are on: {names}</p>"


def _warnings(record: RunRecord) -> Iterator[str]:
    if error := record.run.get("error"):
        yield str(error)
    beat = _seconds(_beat(record).get("time"))
    if record.run.get("state") == "running" and beat is not None and (quiet := time.time() - beat) > SILENT_AFTER:
        yield (
            f"The run says that it goes on, but gave no sign of life for {quiet / 60:.0f} minutes before this page was "
            "written. If its process is gone, `resume` goes on from its last checkpoint."
        )
    if count := record.run.get("incident_count", len(_list(record.run.get("incidents")))):
        yield f"Incidents: {count}. See below."
    if not record.steps:
        yield "Nothing was logged yet: there are no curves."
    yield from record.unreadable


def _section(record: RunRecord, name: str) -> Mapping[str, Any]:
    section = record.config.get(name)
    return section if isinstance(section, Mapping) else {}


def _beat(record: RunRecord) -> Mapping[str, Any]:
    beat = record.run.get("heartbeat")
    return beat if isinstance(beat, Mapping) else {}


def _happened(record: RunRecord) -> Iterator[tuple[int, str, str]]:
    for resume in _list(record.run.get("resumes")):
        yield _step(resume), "resumed", _detail(resume)
    for incident in _list(record.run.get("incidents")):
        yield _step(incident), str(incident.get("kind", "incident")), _detail(incident)


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _step(event: Mapping[str, Any]) -> int:
    step = event.get("step", 0)
    return step if isinstance(step, int) else 0


def _detail(event: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in event.items() if name not in ("step", "kind")}
    return "; ".join(f"{name} {_moment(value) if name == 'time' else _plain(value)}" for name, value in rest.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_plain(item)}" for name, item in value.items())
    return " | ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _moment(value: Any) -> str:
    seconds = _seconds(value)
    if seconds is None:
        return str(value) if value else ""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _seconds(value: Any) -> float | None:
    """A moment as seconds since 1970, from ISO text."""
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return None
