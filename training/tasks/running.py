"""A finetuning run from its configuration to its report and exported weights."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias, cast

from midway_hub import MidwayConfig, MidwayNetwork, hub
from midway_hub._stored import read_json
from midway_hub.heads import FlowHeadConfig, HeadConfig
from midway_hub.hub.errors import WeightsNotFoundError
from midway_hub.hub.weight_files import PREPROCESSOR
from midway_hub.processing import MidwayImageProcessor, read_processor
from midway_hub.training.configuration import LENGTH, completed
from midway_hub.training.data.supervised import Examples
from midway_hub.training.engine.best import Keep
from midway_hub.training.engine.checkpoint import BEST
from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.loop import Outcome, train
from midway_hub.training.engine.processes import make_fabric, processes_wanted
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.evaluation.probes import HeadProbe, flow_probe, segmentation_probe
from midway_hub.training.export import export_run, set_export_aside
from midway_hub.training.plan import Derived, Plan
from midway_hub.training.report import write_report
from midway_hub.training.tasks.base import Task
from midway_hub.training.tasks.batch_norm import synchronise_batch_norm
from midway_hub.training.tasks.config import EvaluationSettings, FlowConfig, SegmentationConfig, parse_task_config
from midway_hub.training.tasks.flow import FlowTask
from midway_hub.training.tasks.inheritance import HeadName, NetworkShapes, inherit
from midway_hub.training.tasks.plan import make_task_plan
from midway_hub.training.tasks.segmentation import SegmentationTask, head_config
from midway_hub.training.tasks.start import headed, inherited_keys, starting_network
from midway_hub.training.timeline import Timeline

_log = logging.getLogger("midway_hub")

MAY_CHANGE = (
    "recipe",
    "description",
    *("data.roots", "data.root", "data.workers", "data.prefetch", "data.max_rejected", "data.max_missing"),
    "evaluation",
)
"""Keys outside the engine's that a resumed run may change; the data's fingerprint is compared on its own."""

ARCHITECTURE = "architecture.json"
"""What the run's network is made of: a checkpoint is loaded into it without the weights that the run started from."""

_AGAIN = "resume the run: that writes it anew"

AnyConfig: TypeAlias = FlowConfig | SegmentationConfig


def finetune(config: AnyConfig, run_dir: Path, *, longer: bool = False) -> Outcome | None:
    """Finetune from the start or from the last whole checkpoint, then write report and weights.

    Args:
        config: The run.
        run_dir: Where everything is written.
        longer: Go on with a run that was to be shorter, too; what it exported stays under the name of its step.

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
    if fabric.world_size > 1:
        synchronise_batch_norm(task.network, fabric.device)

    def on_open() -> None:
        if longer:
            set_export_aside(run_dir)
        leave_for_report(config, plan, task, examples, run_dir)

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
        keep=best_by(config.evaluation),
        may_change=(*MAY_CHANGE, *LENGTH) if longer else MAY_CHANGE,
        complete=completed(parse_task_config),
        on_open=on_open,
    )
    if not fabric.is_global_zero:
        return None
    if outcome.state == "finished":
        write_report(run_dir)
        if not (run_dir / "export").exists():
            best = (outcome.checkpoint / BEST).exists()
            if config.evaluation.keep_best is not None and not best:
                _log.warning("%s was never measured: the last weights are exported", config.evaluation.keep_best)
            export_run(run_dir, run_dir / "export", build=lambda _: task, name=Path(config.recipe).stem, best=best)
    return outcome


def build_task(config: AnyConfig, timeline: Timeline, *, model: MidwayNetwork | None = None) -> Task:
    """Make what is trained, drawn from the run's seed.

    Args:
        config: The run.
        timeline: Its length.
        model: The network, where it is there already; default: what `config.start` says.
    """
    which, head = head_of(config)
    made = model or starting_network(config.start, head, which=which, seed=config.seed, named=config.task.head)
    if isinstance(config, FlowConfig):
        return FlowTask(made, config.task, timeline, freeze=config.start.freeze)
    return SegmentationTask(made, config.task, timeline, freeze=config.start.freeze)


def head_of(config: AnyConfig) -> tuple[HeadName, HeadConfig]:
    """Return the head that a run trains: what a network calls it, and what it is made of."""
    if isinstance(config, FlowConfig):
        return "flow_head", FlowHeadConfig.of({**config.task.head, "tile": config.data.example_size()})
    return "segmentation_head", head_config(config.task, *config.data.classes())


def what_is_kept(config: AnyConfig) -> Iterator[Derived]:
    """Tell what of the checkpoint a run goes on with, as far as that can be known without a download."""
    start, (which, head) = config.start, head_of(config)
    if start.weights is None:
        return
    try:
        found = hub.resolve(start.weights, revision=start.revision, local_files_only=True)
    except WeightsNotFoundError as error:
        yield Derived("kept of the checkpoint", "known once it is here", str(error))
        return
    old = MidwayConfig.from_pretrained(found.directory)
    old.target_network = "shared"
    new = headed(old, start, head, which, config.task.head)
    there, wanted = (NetworkShapes.without_weights(it) for it in (old, new))
    for part, text in inherit(there, wanted, start, which).described().items():
        yield Derived(f"weights of the {part}", text, "start.weights: what fits by name, shape and meaning")
    if getattr(old, which) is not None:
        for key in inherited_keys(new, which):
            why = "as asked for" if key in config.task.head else "as in the checkpoint"
            yield Derived(f"task.head.{key}", getattr(new, which)[key], why)


def rebuild(values: dict[str, Any], run_dir: Path) -> Trainable:
    """Make the network of a run for weights to be loaded into: reads neither its data nor what it started from."""
    config = parse_task_config(values)
    model = MidwayNetwork(MidwayConfig.from_dict(read_json(run_dir / ARCHITECTURE, _AGAIN)))
    model.image_processor = run_processor(run_dir, model)
    return build_task(config, make_task_plan(config, items=1, world_size=1).timeline, model=model)


def run_processor(run_dir: Path, model: MidwayNetwork) -> MidwayImageProcessor:
    """Read how frames are made for a run's network, by ImageNet's numbers where the run does not say."""
    file = run_dir / PREPROCESSOR
    return read_processor(file if file.is_file() else None, patch_size=model.config.patch_size)


def forecast(config: AnyConfig) -> Plan:
    """Work out every derived number of a run on its data, without starting it."""
    items = len(config.data.examples())
    plan = make_task_plan(config, items=items, world_size=processes_wanted(config.engine))
    return dataclasses.replace(plan, derived=(*plan.derived, *what_is_kept(config)))


def leave_for_report(config: AnyConfig, plan: Plan, task: Task, examples: Examples, run_dir: Path) -> None:
    """Write what only a run's start knows: derived numbers, what the network is made of, pictures of a few examples."""
    derived = [dataclasses.asdict(number) for number in (*plan.derived, *what_is_kept(config))]
    replace_text(run_dir / "derived.json", json.dumps(derived, indent=2) + "\n")
    task.network.model.image_processor.save_pretrained(run_dir)
    replace_text(run_dir / ARCHITECTURE, task.network.model.config.to_json_string(use_diff=False))
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
        self._probes: dict[str, HeadProbe] = {}

    def __call__(self, trainable: Trainable) -> dict[str, float]:
        """Measure what is being trained; of several data sets each by its name, and the mean as if of one."""
        self._probes = self._probes or {name: self._open(name) for name in self._config.evaluation.names()}
        model = cast(Task, trainable).network.model
        found = {name: probe(model) for name, probe in self._probes.items()}
        numbers = next(iter(found.values()))
        means = {number: fmean(each[number] for each in found.values()) for number in numbers}
        if len(found) == 1:
            return means
        return means | {f"{name}/{number}": value for name, each in found.items() for number, value in each.items()}

    def _open(self, name: str) -> HeadProbe:
        config, evaluation = self._config, self._config.evaluation
        if isinstance(config, FlowConfig):
            pairs = config.data.held_out(name, evaluation.root, evaluation.limit)
            return flow_probe(pairs, evaluation.limit, overlap=config.evaluation.overlap)
        return segmentation_probe(config.data.held_out(name, evaluation.root, evaluation.limit), evaluation.limit)


def best_by(evaluation: EvaluationSettings) -> Keep | None:
    """Return what the best weights are kept by, if they are."""
    number = evaluation.keep_best
    if number is None:
        return None
    return Keep(f"{Evaluating.name}/{number}", evaluation.lowest[number], evaluation.measured_on())
