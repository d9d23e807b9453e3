"""Evaluate optical flow: several estimators on one data set, with everything that their numbers depend on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.training.data.flow.sample import FlowDataset, FlowSample
from midway_hub.training.evaluation.flow.estimators import Estimator
from midway_hub.training.evaluation.flow.metrics import FlowMeter, FlowResult
from midway_hub.training.evaluation.flow.pictures import flow_strip
from midway_hub.training.evaluation.items import chosen_items, picture_file, spread
from midway_hub.training.evaluation.records import EvaluationRecord, plain

VERSION = 1  # of the protocol: changed whenever the same estimate gives another number
ITEMS = "per_pair.jsonl"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EstimatorResult:
    """What one estimator reached.

    Attributes:
        numbers: Its errors.
        settings: What they depend on: weights, resolution, tile, overlap, precision, device.
        seconds: Median time of an estimate.
    """

    numbers: FlowResult
    settings: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class FlowEvaluation:
    """An evaluation of flow.

    Attributes:
        dataset: Name of the data set.
        pairs: Pairs that were measured.
        of: Pairs that the data set has.
        resolutions: How many pairs there are of each size of frames, `HxW`.
        estimators: Results by name.
    """

    dataset: str
    pairs: int
    of: int
    resolutions: dict[str, int]
    estimators: dict[str, EstimatorResult]


def evaluate_flow(
    dataset: FlowDataset,
    estimators: Sequence[Estimator],
    *,
    out: Path | None = None,
    limit: int | None = None,
    pictures: int = 8,
    progress: Progress = lambda what, done, total: None,
) -> FlowEvaluation:
    """Measure estimators on a data set (CroCo v2's test metrics: pooled over pixels; per-image averages beside them).

    Args:
        dataset: Pairs with ground truth.
        estimators: What is measured; each under its own name.
        out: Folder for results.json, per_pair.jsonl and pictures/. Pairs that it already holds are not estimated
            again, so an interrupted evaluation goes on where it was.
        limit: Measure at most so many pairs, evenly spread over the data set.
        pictures: Of how many pairs pictures are drawn; none without `out`.
        progress: Called with what is done, how many pairs are done and how many there are.

    Raises:
        FileNotFoundError: The data set lacks files.
        SampleError: A file of the data set is broken.
        ValueError: Nothing to measure, two estimators of one name, an estimate of another size or with NaN, or a
            folder that holds numbers of another configuration.
    """
    names = [estimator.name for estimator in estimators]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        raise ValueError(f"two estimators are called {twice[0]!r}; rename one" if twice else "no estimator is given")
    indices = chosen_items(dataset, limit)
    protocol = {"task": "flow", "version": VERSION, "dataset": dataset.name, "data": dataset.fingerprint()}
    record = EvaluationRecord(
        out, ITEMS, protocol=protocol, measured={estimator.name: estimator.settings for estimator in estimators}
    )
    drawn = set() if out is None else {indices[number] for number in spread(len(indices), pictures)}
    for done, index in enumerate(indices):
        progress("pairs", done, len(indices))
        _measure(record, dataset, index, estimators, drawn)
    progress("pairs", len(indices), len(indices))
    result = _gather(record, dataset, indices, estimators)
    record.finish(plain(result))
    return result


def _measure(
    record: EvaluationRecord, dataset: FlowDataset, index: int, estimators: Sequence[Estimator], drawn: set[int]
) -> None:
    """Measure every estimator on one pair, as far as that is not done."""
    sample: FlowSample | None = None
    for estimator in estimators:
        picture = picture_file(record.pictures, index, estimator.name) if index in drawn else None
        known = (estimator.name, index) in record
        if known and (picture is None or picture.is_file()):
            continue
        sample = sample or dataset[index]
        started = time.perf_counter()
        estimate = estimator(sample.first, sample.second)
        seconds = time.perf_counter() - started
        meter = FlowMeter()
        meter.update(estimate, sample)
        if picture is not None:
            flow_strip(sample, estimate, estimator=estimator.name).save(picture)
        if not known:
            _keep(record, estimator.name, index, sample, meter, seconds)


def _keep(
    record: EvaluationRecord, estimator: str, index: int, sample: FlowSample, meter: FlowMeter, seconds: float
) -> None:
    height, width = sample.first.shape[:2]
    record.add(
        estimator,
        index,
        name=sample.name,
        epe=meter.result().pooled["epe"],
        size=f"{height}x{width}",
        seconds=seconds,
        state=meter.state(),
    )


def _gather(
    record: EvaluationRecord, dataset: FlowDataset, indices: Sequence[int], estimators: Sequence[Estimator]
) -> FlowEvaluation:
    results = {}
    for estimator in estimators:
        lines = [record[estimator.name, index] for index in indices]
        meter = FlowMeter()
        for line in lines:
            meter.merge(line["state"])
        results[estimator.name] = EstimatorResult(
            numbers=meter.result(),
            settings=dict(estimator.settings),
            seconds=float(np.median([line["seconds"] for line in lines])),
        )
    sizes = Counter(record[estimators[0].name, index]["size"] for index in indices)
    return FlowEvaluation(
        dataset=dataset.name, pairs=len(indices), of=len(dataset), resolutions=dict(sizes), estimators=results
    )
