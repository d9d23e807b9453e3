"""A pretraining run from its configuration to its report and exported weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midway_hub.training.build import Parts, Probing, build_method, build_parts, open_source
from midway_hub.training.config import RunConfig, parse_config
from midway_hub.training.configuration import LENGTH, completed
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.views import contact_sheet, draw_views
from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.loop import Outcome, train
from midway_hub.training.engine.processes import make_fabric, processes_wanted
from midway_hub.training.export import export_run, set_export_aside
from midway_hub.training.methods import Method
from midway_hub.training.plan import Plan, make_plan
from midway_hub.training.report import write_report
from midway_hub.training.trace import trace_step

SAMPLES = 3

MAY_CHANGE = (
    "recipe",
    "description",
    *("data.path", "data.workers", "data.prefetch", "data.start_method", "data.max_rejected"),
    *("data.flow.cache", "data.flow.cache_gib", "data.flow.path"),
    "probes",
)
"""Keys outside the engine's that a resumed run may change; the data's fingerprint is compared on its own."""


VIDEO_INDEX = "video_index"
"""Folder of a run's directory that keeps the videos' lists of frames; it may be deleted at any time."""


def pretrain(config: RunConfig, run_dir: Path, *, longer: bool = False) -> Outcome | None:
    """Pretrain from the start or from the last whole checkpoint, then write report and weights.

    Args:
        config: The run.
        run_dir: Where everything is written.
        longer: Go on with a run that was to be shorter, too; what it exported stays under the name of its step.

    Returns:
        How the run ended; None in every process but the first.

    Raises:
        ConfigError: The configuration does not suit the data or the processes.
        ConfigurationChangedError: The directory holds another run.
    """
    fabric = make_fabric(config.engine)
    parts = build_parts(
        config,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
        index_cache=run_dir / VIDEO_INDEX,
        device=fabric.device,
    )

    def on_open() -> None:
        if longer:
            set_export_aside(run_dir)
        leave_for_report(config, parts, run_dir)

    outcome = train(
        parts.method,
        parts.batches,
        config.engine,
        run_dir,
        fabric=fabric,
        timeline=parts.plan.timeline,
        config=config.to_dict(),
        seed=config.seed,
        alike=config.compat.same_seed_on_every_rank,
        probes=[Probing(config)] if config.probes.every_steps else [],
        may_change=(*MAY_CHANGE, *LENGTH) if longer else MAY_CHANGE,
        complete=completed(parse_config),
        on_open=on_open,
    )
    if not fabric.is_global_zero:
        return None
    if outcome.state == "finished":
        write_report(run_dir)
        if not (run_dir / "export").exists():
            export_run(run_dir, run_dir / "export", build=rebuild, name=Path(config.recipe).stem)
    return outcome


def leave_for_report(config: RunConfig, parts: Parts, run_dir: Path) -> None:
    """Write what only a run's start knows: derived numbers with reasons, and pictures of a few samples."""
    derived = [dataclasses.asdict(number) for number in parts.plan.derived]
    replace_text(run_dir / "derived.json", json.dumps(derived, indent=2) + "\n")
    if (run_dir / "samples").exists():
        return
    (run_dir / "samples").mkdir()
    generator = np.random.default_rng(config.seed)
    for index in range(min(SAMPLES, len(parts.batches.source))):
        try:
            (clip,) = parts.batches.source.clips(index, 1, generator)
        except SampleError:
            continue  # the run itself says what cannot be read
        height, width = clip.first.shape[:2]
        draw = draw_views(config.needs, (height, width), generator)
        contact_sheet(clip, draw).save(run_dir / "samples" / f"{index}.jpg", quality=85)


def rebuild(values: dict[str, Any]) -> Method:
    """Make the untrained method of a saved configuration, for weights to be loaded into; reads no data."""
    config = parse_config(values)
    return build_method(config, make_plan(config, items=1, world_size=1))


def forecast(config: RunConfig) -> Plan:
    """Work out every derived number of a run on its data, without starting it."""
    return make_plan(config, items=len(open_source(config)), world_size=processes_wanted(config.engine))


def trace_run(config: RunConfig) -> str:
    """Take the first step of a run on the CPU, one micro-batch of it, and describe it as a reading map."""
    small = config.data.model_copy(update={"workers": 0, "visits_per_step": config.engine.accumulate})
    parts = build_parts(config.model_copy(update={"data": small}))
    batch = next(iter(parts.batches.iterate(0, 1)))
    return trace_step(parts.method, parts.batches.finish(batch, torch.device("cpu")))
