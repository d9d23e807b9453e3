"""Evaluate label propagation: numbers of one encoder on one data set by one protocol, with all they depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from midway_hub.analysis.propagation_frames import fitted_protocol
from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.training.evaluation.items import chosen_items, picture_file, spread
from midway_hub.training.evaluation.propagation.davis_scores import DavisScores
from midway_hub.training.evaluation.propagation.encoders import MeasuredEncoder
from midway_hub.training.evaluation.propagation.measure import MEASUREMENTS, Outputs
from midway_hub.training.evaluation.propagation.pck import PoseScores
from midway_hub.training.evaluation.propagation.sequences import SequenceSet
from midway_hub.training.evaluation.records import EvaluationRecord, plain
from midway_hub.training.evaluation.segmentation.metrics import SegmentationResult

VERSION = 1  # of the measuring: changed whenever the same prediction gives another number
ITEMS, PREDICTIONS = "per_sequence.jsonl", "predictions"
MEASURED = "encoder"


@dataclass(frozen=True)
class PropagationEvaluation:
    """An evaluation of label propagation.

    Attributes:
        dataset: Name of the data set.
        task: `davis`, `vip` or `jhmdb`.
        sequences: Videos that were measured.
        of: Videos that the data set has.
        propagation: Every number of the protocol, its name first, with the normalisation that the encoder's frames got.
        numbers: DAVIS: J&F, J, F. VIP: mIoU. JHMDB: PCK. In percent.
        encoder: What tables call the encoder.
        settings: What the numbers depend on beside: weights, features, layer, precision, device.
    """

    dataset: str
    task: str
    sequences: int
    of: int
    propagation: dict[str, Any]
    numbers: DavisScores | SegmentationResult | PoseScores
    encoder: str
    settings: dict[str, Any]


def evaluate_propagation(
    encoder: MeasuredEncoder,
    dataset: SequenceSet,
    protocol: PropagationProtocol,
    *,
    out: Path | None = None,
    limit: int | None = None,
    pictures: int = 8,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PropagationEvaluation:
    """Propagate the labels of every video's first frame, and measure them in the others.

    Args:
        encoder: Whose features the labels follow.
        dataset: Labelled videos.
        protocol: How labels are propagated; the encoder's frames are of its own patches and normalisation.
        out: Folder for results.json, per_sequence.jsonl, pictures/ and predictions/, which holds indexed PNGs in DAVIS'
            naming (for JHMDB joints.npy). Videos that it already holds are not propagated again, so an interrupted
            evaluation goes on where it was.
        limit: Measure at most so many videos, evenly spread over the data set.
        pictures: Of how many videos a picture is drawn; none without `out`.
        progress: Called with what is done, how many videos are done and how many there are.

    Raises:
        FileNotFoundError: The data set lacks files.
        SampleError: A file of the data set is broken.
        ValueError: There is nothing to measure, or the folder holds numbers of another configuration.
    """
    measurement, protocol = MEASUREMENTS[dataset.task], fitted_protocol(protocol, encoder.encode)
    indices = chosen_items(dataset, limit)  # type: ignore[arg-type]  # it asks for files and length alone
    rules = {"task": "propagation", "version": VERSION, "dataset": dataset.name, "data": dataset.fingerprint()}
    record = EvaluationRecord(
        out, ITEMS, protocol={**rules, "propagation": asdict(protocol)}, measured={MEASURED: encoder.settings}
    )
    drawn = {indices[number] for number in spread(len(indices), pictures)}
    for done, index in enumerate(indices):
        progress("videos", done, len(indices))
        item = dataset[index]
        if (MEASURED, index) not in record:
            outputs = Outputs()
            if out is not None:
                picture = picture_file(record.pictures, index, item.name) if index in drawn else None
                outputs = Outputs(out / PREDICTIONS / item.name, picture)
            try:
                state = measurement.sequence(encoder, item, protocol, outputs)
            except ValueError as error:
                raise ValueError(f"{item.name}: {error}") from error
            record.add(MEASURED, index, name=item.name, **state)
    progress("videos", len(indices), len(indices))
    result = PropagationEvaluation(
        dataset=dataset.name,
        task=dataset.task,
        sequences=len(indices),
        of=len(dataset),
        propagation=asdict(protocol),
        numbers=measurement.pooled([record[MEASURED, index] for index in indices]),
        encoder=encoder.name,
        settings=dict(encoder.settings),
    )
    record.finish(plain(result))
    return result
