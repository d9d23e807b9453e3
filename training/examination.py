"""The doctor on a configuration: its data, its method, this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midway_hub.devices import checked_device
from midway_hub.training.build import build_method, open_source
from midway_hub.training.config import RunConfig
from midway_hub.training.data.flow_provider import FlowAsked
from midway_hub.training.doctor import Diagnosis, Examination, RunPlan, diagnose, examine, summarise
from midway_hub.training.engine.processes import choose_accelerator, processes_wanted
from midway_hub.training.plan import make_plan
from midway_hub.video import available_readers


@dataclass(frozen=True)
class RunExamination:
    """What the doctor found about a run.

    Attributes:
        plan: The run as the doctor sees it.
        examination: What was measured.
        diagnosis: What follows.
    """

    plan: RunPlan
    examination: Examination
    diagnosis: Diagnosis

    def text(self) -> str:
        """Return the findings to read."""
        return summarise(self.diagnosis, self.examination.measured, self.plan, readers=self.examination.readers)

    def facts(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            "plan": dataclasses.asdict(self.plan),
            "examination": dataclasses.asdict(self.examination),
            "diagnosis": dataclasses.asdict(self.diagnosis),
        }


def examine_run(config: RunConfig, *, run_dir: Path, seconds: float, progress: Callable[[str], None]) -> RunExamination:
    """Measure a configuration on its data and this machine.

    Args:
        config: The run.
        run_dir: Where its checkpoints will be.
        seconds: About how long every measurement takes.
        progress: Called with what is measured next.
    """
    data, engine = config.data, config.engine
    processes = processes_wanted(engine)
    needs = config.needs
    source = open_source(config)
    plan = make_plan(config, items=len(source), world_size=processes)
    device = checked_device(choose_accelerator(engine))
    run = RunPlan(
        steps=plan.timeline.steps,
        pairs=plan.timeline.batch_size,
        processes=processes,
        accumulate=engine.accumulate,
        workers=data.workers,
        augment=data.augment,
        packed=data.source == "pack",
        precision=engine.precision,
        checkpoints=engine.keep_last + 1,
        shares_cores=device.type == "cpu",
    )
    videos = data.source == "videos"
    examination = examine(
        source,
        lambda: build_method(config, plan),
        run,
        needs=needs,
        flow=FlowAsked.by(needs, data.flow),
        pairs_per_visit=data.pairs_per_visit,
        device=device,
        run_dir=run_dir,
        source_with_reader=(lambda name: open_source(_with_reader(config, name))) if videos else None,
        readers=available_readers() if videos else (),
        can_pack=videos,
        seconds=seconds,
        progress=progress,
    )
    return RunExamination(run, examination, diagnose(examination.measured, run))


def _with_reader(config: RunConfig, reader: str) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"reader": reader})})
