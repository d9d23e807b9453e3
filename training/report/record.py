"""What a run directory says of its run, read whatever state the run is in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midway_hub.training.yaml_text import parse_yaml

CONFIG, RUN, DATA, METRICS, DERIVED = "config.yaml", "run.json", "data.json", "metrics.jsonl", "derived.json"


@dataclass(frozen=True)
class RunRecord:
    """The files of a run directory as plain data. What is not there yet is empty.

    Attributes:
        directory: The run directory.
        config: Every resolved setting, from `config.yaml`.
        run: State, versions, resumes, incidents, ..., from `run.json`.
        data: Fingerprint and rejected files, from `data.json`.
        derived: `name`, `value` and `reason` of what follows from the configuration, from `derived.json`.
        steps: Steps that something was logged at, ascending.
        series: Per metric, its value at every one of `steps`; NaN where it was not logged, or not finite.
        unreadable: What could not be read, one sentence each.
    """

    directory: Path
    config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    derived: list[dict[str, Any]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    series: dict[str, list[float]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def last(self, name: str) -> float | None:
        """Return the last finite value of a metric, or None."""
        return next((value for value in reversed(self.series.get(name, ())) if math.isfinite(value)), None)


def read_run(run_dir: str | Path) -> RunRecord:
    """Read a run directory.

    Args:
        run_dir: The directory of a run that goes on, ended, or crashed while it wrote.

    Returns:
        What it says; a damaged or missing file is named in `unreadable`, not raised.

    Raises:
        FileNotFoundError: The directory is none of a run: it has neither `run.json` nor `config.yaml`.
    """
    directory = Path(run_dir)
    if not (directory / RUN).is_file() and not (directory / CONFIG).is_file():
        raise FileNotFoundError(
            f"{directory} is not the directory of a run: it has neither {RUN} nor {CONFIG}. Give the folder that "
            "`pretrain --run-dir` wrote"
        )
    trouble: list[str] = []
    rows = list(_rows(directory / METRICS, trouble))
    steps, series = _columns(rows)
    return RunRecord(
        directory=directory,
        config=_read(directory / CONFIG, trouble),
        run=_read(directory / RUN, trouble),
        data=_read(directory / DATA, trouble),
        derived=_derived(directory / DERIVED, trouble),
        steps=steps,
        series=series,
        unreadable=trouble,
    )


def flatten(nested: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Join the keys of nested mappings: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update({f"{name}{separator}{inner}": leaf for inner, leaf in flatten(value, separator).items()})
        else:
            flat[str(name)] = value
    return flat


def _read(path: Path, trouble: list[str]) -> dict[str, Any]:
    if not path.is_file():
        trouble.append(f"{path.name} is not there")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else parse_yaml(text, path.name)
    except (OSError, ValueError, RecursionError) as error:
        trouble.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        trouble.append(f"{path.name} holds a {type(value).__name__}, no mapping")
        return {}
    return {str(key): item for key, item in value.items()}


def _derived(path: Path, trouble: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        trouble.append(f"{path.name} cannot be read: {error}")
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _rows(path: Path, trouble: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    if not path.is_file():
        trouble.append(f"{path.name} is not there")
        return
    bad = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                yield int(row["step"]), {k: float(v) for k, v in flatten(row, "/").items() if _is_number(k, v)}
            except (ValueError, TypeError, KeyError):
                bad += bool(line.strip())
    if bad:
        trouble.append(f"{path.name}: lines that cannot be read: {bad} (a run that was killed may leave half of one)")


def _is_number(name: str, value: Any) -> bool:
    return name != "step" and isinstance(value, int | float) and not isinstance(value, bool)


def _columns(rows: list[tuple[int, dict[str, float]]]) -> tuple[list[int], dict[str, list[float]]]:
    """A step that was logged twice (before a crash and after the resume) has what was logged last."""
    merged: dict[int, dict[str, float]] = {}
    for step, values in rows:
        merged.setdefault(step, {}).update(values)
    steps = sorted(merged)
    names = dict.fromkeys(name for _, values in rows for name in values)
    series = {name: [_finite(merged[step].get(name, math.nan)) for step in steps] for name in names}
    return steps, series


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
