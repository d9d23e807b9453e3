"""A finetuning run from its configuration to its report and exported weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from midway_hub.training.data.supervised import Examples
from midway_hub.training.engine.loop import Outcome, train
from midway_hub.training.engine.processes import make_fabric, processes_wanted
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.evaluation.probes import HeadProbe, flow_probe, segmentation_probe
from midway_hub.training.export import export_run
from midway_hub.training.plan import Plan
from midway_hub.training.report import write_report
from midway_hub.training.tasks.base import Task
from midway_hub.training.tasks.config import FlowConfig, SegmentationConfig, parse_task_config
from midway_hub.training.tasks.flow import FlowTask
from midway_hub.training.tasks.plan import make_task_plan
from midway_hub.training.tasks.segmentation import SegmentationTask, head_config
from midway_hub.training.tasks.start import starting_network
from midway_hub.training.timeline import Timeline

from midway_hub import MidwayNetwork
from midway_hub.heads import FlowHeadConfig
from midway_hub.hub.weight_files import PREPROCESSOR
from midway_hub.processing import MidwayImageProcessor, read_processor

MAY_CHANGE = (
    "recipe",
    "description",
    *("data.roots", "data.root", "data.workers", "data.prefetch", "data.max_rejected", "data.max_missing"),
    "evaluation",
)
"""Keys outside the engine's that a resumed run may change; the data's fingerprint is compared on its own."""

ARCHITECTURE = "architecture.json"
"""What the run's network is made of: a checkpoint is loaded into it without the weights that the run started from."""

AnyConfig: TypeAlias = FlowConfig | SegmentationConfig


def finetune(config: AnyConfig, run_dir: Path) -> Outcome | None:
    """Finetune from the start or from the last whole checkpoint, then write report and weights.

    Args:
        config: The run.
        run_dir: Where everything is written.

    Returns:
        How the run ended; None in every process but the first.

    Raises:
        ConfigError: The configuration does not suit the data or the processes.
        ConfigurationChangedError: The directory holds another run.
        FileNotFoundError: More of the data is missing than `data.max_missing` allows.
        OSError: The checkpoint to start from cannot be read.
    """
    fabric = make_fabric(config.engine)
    examples = config.data.examples()
    plan = make_task_plan(config, items=len(examples), world_size=fabric.world_size)
    task = build_task(config, plan.timeline)
    if (run_dir / ARCHITECTURE).is_file():  # it goes on with frames as it began, whatever became of what it began from
        task.network.model.image_processor = run_processor(run_dir, task.network.model)
    batches = config.data.batches(
        examples,
        seed=config.seed,
        timeline=plan.timeline,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        accumulate=config.engine.accumulate,
        pin_memory=fabric.device.type == "cuda",
        normalisation=task.network.model.image_processor.normalisation,
    )
    outcome = train(
        task,
        batches,
        config.engine,
        run_dir,
        fabric=fabric,
        timeline=plan.timeline,
        config=config.to_dict(),
        seed=config.seed,
        probes=[Evaluating(config)] if config.evaluation.every_steps else [],
        may_change=MAY_CHANGE,
        on_open=lambda: leave_for_report(config, plan, task, examples, run_dir),
    )
    if not fabric.is_global_zero:
        return None
    if outcome.state == "finished":
        write_report(run_dir)
        if not (run_dir / "export").exists():
            export_run(run_dir, run_dir / "export", build=lambda _: task, name=Path(config.recipe).stem)
    return outcome


def build_task(config: AnyConfig, timeline: Timeline, *, model: MidwayNetwork | None = None) -> Task:
    """Make what is trained, drawn from the run's seed.

    Args:
        config: The run.
        timeline: Its length.
        model: The network, where it is there already; default: what `config.start` says.
    """
    if isinstance(config, FlowConfig):
        head = FlowHeadConfig.of({**config.task.head, "tile": config.data.example_size()})
        made = model or starting_network(config.start, head, which="flow_head", seed=config.seed)
        return FlowTask(made, config.task, timeline, freeze=config.start.freeze)
    classes, palette = config.data.classes()
    segmentation = head_config(config.task, classes, palette)
    made = model or starting_network(config.start, segmentation, which="segmentation_head", seed=config.seed)
    return SegmentationTask(made, config.task, timeline, freeze=config.start.freeze)


def rebuild(values: dict[str, Any], run_dir: Path) -> Trainable:
    """Make the network of a run for weights to be loaded into: reads neither its data nor what it started from."""
    from midway_hub import MidwayConfig

    config = parse_task_config(values)
    model = MidwayNetwork(MidwayConfig.from_dict(json.loads((run_dir / ARCHITECTURE).read_text())))
    model.image_processor = run_processor(run_dir, model)
    return build_task(config, make_task_plan(config, items=1, world_size=1).timeline, model=model)


def run_processor(run_dir: Path, model: MidwayNetwork) -> MidwayImageProcessor:
    """Read how frames are made for a run's network, by ImageNet's numbers where the run does not say."""
    file = run_dir / PREPROCESSOR
    return read_processor(file if file.is_file() else None, patch_size=model.config.patch_size)


def forecast(config: AnyConfig) -> Plan:
    """Work out every derived number of a run on its data, without starting it."""
    items = len(config.data.examples())
    return make_task_plan(config, items=items, world_size=processes_wanted(config.engine))


def leave_for_report(config: AnyConfig, plan: Plan, task: Task, examples: Examples, run_dir: Path) -> None:
    """Write what only a run's start knows: derived numbers, what the network is made of, pictures of a few examples."""
    derived = [dataclasses.asdict(number) for number in plan.derived]
    (run_dir / "derived.json").write_text(json.dumps(derived, indent=2) + "\n")
    task.network.model.image_processor.save_pretrained(run_dir)
    (run_dir / ARCHITECTURE).write_text(task.network.model.config.to_json_string(use_diff=False))
    if not (run_dir / "samples").exists():
        config.data.save_pictures(examples, run_dir / "samples", seed=config.seed)


class Evaluating:
    """The configuration's measurements as one of the engine's probes; held-out data is opened when first needed.

    Args:
        config: The run.
    """

    name = "evaluation"

    def __init__(self, config: AnyConfig) -> None:
        self.every = config.evaluation.every_steps
        self._config = config
        self._probe: HeadProbe | None = None

    def __call__(self, trainable: Trainable) -> Mapping[str, float]:
        """Measure what is being trained."""
        if self._probe is None:
            evaluation = self._config.evaluation
            held_out = self._config.data.held_out(evaluation.dataset, evaluation.root, evaluation.limit)
            make: Any = flow_probe if isinstance(self._config, FlowConfig) else segmentation_probe
            self._probe = cast(HeadProbe, make(held_out, evaluation.limit))
        return self._probe(cast(Task, trainable).network.model)
