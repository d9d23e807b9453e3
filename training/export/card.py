"""The card of an exported run: what was measured and written down while it trained, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from midway_hub.cards import CARD, MARKER
from midway_hub.training.export.command import command_of
from midway_hub.training.report.overview import compat_switches, devices, pairs_per_step, planned_steps
from midway_hub.training.report.record import RunRecord

_TAGS = ["midway", "video", "self-supervised-learning", "vision-transformer"]
_ARCHITECTURE = (
    *(
        "timm",
        "output_stride",
        "embed_dim",
        "depth",
        "num_heads",
        "dynamics",
        "motion_dim",
        "num_motion_tokens",
        "levels",
        "patch_size",
    ),
    *("image_size", "positions", "num_registers"),
)
_NOT_RESULTS = (
    *("epoch", "time", "seconds", "per_second", "wait", "memory", "grad"),
    *("learning_rate", "weight_decay", "momentum"),
)


def write_card(
    folder: Path,
    record: RunRecord,
    *,
    step: int,
    licence: str | None,
    name: str,
    command: str | None = None,
    best: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model card of a network that a run made.

    Args:
        folder: The saved network, with its `config.json`.
        record: The run.
        step: Optimizer steps that the weights have behind them.
        licence: SPDX name of the weights' licence, or None.
        name: Heading of the card.
        command: What the run was made with; by default put together from the configuration.
        best: Where the weights are the best of the run: the `name` of the number and its `value`.

    Returns:
        The card.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    command = command or command_of(record)
    sections = [
        _header(licence),
        f"# {name}",
        _summary(record, step, best),
        _loading(config),
        "## Architecture\n\n" + _table(("what", "value"), ((k, config[k]) for k in _ARCHITECTURE if k in config)),
        "## Training\n\n" + _table(("what", "value"), _training(record, step)),
        "## Data\n\n" + _table(("what", "value"), _data(record)),
        _measured(record, step, command),
        "## Versions\n\n" + _table(("package", "version"), _versions(record)),
        "## Licence\n\n" + (f"Weights: {licence}." if licence else "No licence was stated for these weights."),
        "## Not measured\n\nNothing but the numbers above is known of these weights. They are not for decisions that "
        "affect people's safety or rights, and not for identifying people.",
    ]
    card = folder / CARD
    card.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return card


def _loading(config: Mapping[str, Any]) -> str:
    name, what = ("load_encoder", "") if config.get("model_type") != "midway" else ("MidwayNetwork", ".from_pretrained")
    return f'## Loading\n\n```python\nfrom midway_hub import {name}\n\nnet = {name}{what}("path/to/this/folder")\n```'


def _header(licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=licence, library_name="midway_hub", pipeline_tag="image-feature-extraction", tags=_TAGS
    )
    return f"---\n{data.to_yaml()}\n---\n{MARKER}"


def _summary(record: RunRecord, step: int, best: Mapping[str, Any] | None) -> str:
    text = f"{_what_it_is(record)}, by the recipe `{_recipe(record)}`."
    steps = planned_steps(record)
    if best is not None:
        of = f" of {steps:,}" if steps else ""
        text += (
            f"\n\n> **The best of the run, not its last.** These are the weights after {step:,}{of} steps, chosen for "
            f"their `{best['name']}` of {best['value']:.5g}: where that was measured they look better than they are."
        )
    elif steps and step < steps:
        text += f"\n\n> **Not the end of the run.** These are the weights after {step:,} of {steps:,} steps."
    return text


def _what_it_is(record: RunRecord) -> str:
    kind = record.config.get("kind", "pretrain")
    if kind == "pretrain":
        method = _of(record.config, "method", "name") or "a method of midway_hub"
        return f"A network pretrained on video without labels, with `{method}`"
    head = {"flow": "an optical flow head", "segmentation": "a segmentation head"}.get(str(kind), "a head")
    weights, frozen = _of(record.config, "start", "weights"), _of(record.config, "start", "freeze")
    start = f"`{Path(str(weights)).name or weights}`" if weights else "an untrained network"
    return f"A network with {head}, {'the head alone' if frozen else 'everything'} trained with labels from {start}"


def _training(record: RunRecord, step: int) -> Iterator[tuple[str, Any]]:
    steps, pairs, run = planned_steps(record), pairs_per_step(record), record.run
    yield "recipe", _recipe(record)
    yield "optimizer steps", f"{step:,}" + (f" of {steps:,}" if steps else "")
    if pairs:
        what = "pictures" if record.config.get("kind") == "segmentation" else "frame pairs"
        yield f"{what} per step", f"{pairs:,}"
        yield f"{what} seen", f"{step * pairs:,}"
    yield "devices", devices(record) or "unknown"
    yield "precision", _of(record.config, "engine", "precision") or "unknown"
    if (hours := _hours(record, step)) is not None:
        yield "hours", f"{hours:.2f} (sum of the logged steps' times)"
    yield "seed", record.config.get("seed", "unknown")
    if (start := record.config.get("start")) is not None:
        yield "dynamics", start.get("dynamics")
        yield "encoder for both frames", start.get("encoder")
    if changes := run.get("lengths"):
        yield (
            "made longer",
            "; ".join(f"from {c['from']:,} to {c['to']:,} steps at step {c['step']:,}" for c in changes),
        )
    yield "resumes", len(run.get("resumes") or ())
    yield "incidents", run.get("incident_count", len(run.get("incidents") or ()))
    yield "oddities of the released recipe that are on", ", ".join(compat_switches(record)) or "none"


def _data(record: RunRecord) -> Iterator[tuple[str, Any]]:
    fingerprint = record.data.get("fingerprint") or {}
    yield from ((name, value) for name, value in fingerprint.items() if not isinstance(value, Mapping))
    canonical = json.dumps(fingerprint, sort_keys=True).encode()
    yield "sha256 of the whole fingerprint", hashlib.sha256(canonical).hexdigest() if fingerprint else "unknown"
    yield "rejected files", len(record.data.get("rejected") or ())


def _measured(record: RunRecord, step: int, command: str) -> str:
    rows = [
        (metric, f"{value:.5g}", f"{at:,}")
        for metric, (value, at) in _last_values(record, step).items()
        if not any(word in metric for word in _NOT_RESULTS)
    ]
    if not rows:
        return "## Measured\n\nNothing was logged up to this step."
    return (
        "## Measured\n\nLogged by the run itself, the last values up to the exported step; training losses are means "
        f"over the steps since the line before. The command:\n\n```\n{command}\n```\n\n"
        + _table(("number", "value", "step"), rows)
    )


def _versions(record: RunRecord) -> Iterator[tuple[str, Any]]:
    versions = record.run.get("versions")
    known = [(n, v) for n, v in versions.items() if v is not None] if isinstance(versions, Mapping) else []
    yield from known or [("all", "unknown")]


def _last_values(record: RunRecord, step: int) -> dict[str, tuple[float, int]]:
    found = {}
    for metric, values in record.series.items():
        for at, value in zip(record.steps, values, strict=True):
            if at <= step and math.isfinite(value):
                found[metric] = (value, at)
    return found


def _hours(record: RunRecord, step: int) -> float | None:
    """Hours of the steps themselves: each line has the mean time of the steps since the line before."""
    total, before, seen = 0.0, 0, False
    for at, seconds in zip(record.steps, record.series.get("seconds_per_step", ()), strict=False):
        if at <= step and math.isfinite(seconds):
            total, before, seen = total + (at - before) * seconds, at, True
    return total / 3600 if seen else None


def _recipe(record: RunRecord) -> str:
    return str(record.config.get("recipe") or "config.yaml")


def _of(config: Mapping[str, Any], section: str, name: str) -> Any:
    found = config.get(section)
    return found.get(name) if isinstance(found, Mapping) else None


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
