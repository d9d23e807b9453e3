"""Evaluate coarse flow from dynamics: several ways of reading it, on one data set with ground truth."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.processing import MidwayImageProcessor
from midway_hub.training.data.flow.sample import FlowDataset, FlowSample
from midway_hub.training.evaluation.dynamics.pictures import PatchPicture, coarse_strip
from midway_hub.training.evaluation.dynamics.readings import Reader
from midway_hub.training.evaluation.dynamics.scores import CoarseScores, patch_sums, pooled
from midway_hub.training.evaluation.dynamics.truth import patch_truth
from midway_hub.training.evaluation.items import chosen_items, picture_file, spread
from midway_hub.training.evaluation.records import EvaluationRecord, plain

VERSION = 1  # of the protocol: changed whenever the same reading gives another number
ITEMS = "per_pair.jsonl"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReaderResult:
    """What one reader reached.

    Attributes:
        model: The network's name.
        settings: What the numbers depend on: weights, gates, draws, precision, device.
        ways: Scores by way and region: `level 2, peak` and so on; `all`, `confident`, `moving`.
        seconds: Median time of a pair.
    """

    model: str
    settings: dict[str, Any]
    ways: dict[str, dict[str, CoarseScores]]
    seconds: float


@dataclass(frozen=True)
class DynamicsEvaluation:
    """An evaluation of coarse flow.

    Attributes:
        dataset: Name of the data set.
        pairs: Pairs that were measured.
        of: Pairs that the data set has.
        short_side: What frames were resized to; None: they were read as they are.
        resolutions: How many pairs there are of each size of frames, `HxW`.
        occlusions: Whether the data set says what is occluded; patches that leave the frame never count.
        readers: Results by name.
    """

    dataset: str
    pairs: int
    of: int
    short_side: int | None
    resolutions: dict[str, int]
    occlusions: bool
    readers: dict[str, ReaderResult]


def evaluate_dynamics(
    dataset: FlowDataset,
    readers: Sequence[Reader],
    *,
    short_side: int | None = None,
    out: Path | None = None,
    limit: int | None = None,
    pictures: int = 8,
    progress: Progress = lambda what, done, total: None,
) -> DynamicsEvaluation:
    """Measure coarse flow at the centres of patches that are seen in both frames.

    Args:
        dataset: Pairs with ground truth.
        readers: What is measured; each under its own name.
        short_side: Short side in pixels that frames are resized to, errors being told in the frames' own pixels;
            default: frames as they are. Patches are larger on the frame the smaller this is.
        out: Folder for results.json, per_pair.jsonl and pictures/. Pairs that it already holds are not read again, so
            an interrupted evaluation goes on where it was.
        limit: Measure at most so many pairs, evenly spread over the data set.
        pictures: Of how many pairs pictures are drawn; none without `out`.
        progress: Called with what is done, how many pairs are done and how many there are.

    Raises:
        FileNotFoundError: The data set lacks files.
        SampleError: A file of the data set is broken.
        ValueError: Nothing to measure, two readers of one name, a reading with NaN, or a folder that holds numbers of
            another configuration.
    """
    names = [reader.name for reader in readers]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        raise ValueError(f"two readers are called {twice[0]!r}; rename one" if twice else "nothing to measure is given")
    indices = chosen_items(dataset, limit)
    protocol = {
        "task": "dynamics",
        "version": VERSION,
        "dataset": dataset.name,
        "data": dataset.fingerprint(),
        "short_side": short_side,
    }
    record = EvaluationRecord(
        out, ITEMS, protocol=protocol, measured={reader.name: reader.settings for reader in readers}
    )
    drawn = set() if out is None else {indices[number] for number in spread(len(indices), pictures)}
    for done, index in enumerate(indices):
        progress("pairs", done, len(indices))
        _measure(record, dataset, index, readers, short_side, drawn)
    progress("pairs", len(indices), len(indices))
    result = _gather(record, dataset, indices, readers, short_side)
    record.finish(plain(result))
    return result


def _measure(
    record: EvaluationRecord,
    dataset: FlowDataset,
    index: int,
    readers: Sequence[Reader],
    short_side: int | None,
    drawn: set[int],
) -> None:
    """Measure every reader on one pair, as far as that is not done."""
    sample: FlowSample | None = None
    for reader in readers:
        picture = picture_file(record.pictures, index, reader.name) if index in drawn else None
        known = (reader.name, index) in record
        if known and (picture is None or picture.is_file()):
            continue
        sample = sample or dataset[index]
        own: Any = getattr(reader, "image_processor", MidwayImageProcessor())
        processor = own.with_short_side(short_side, multiple=reader.patch_size)
        inputs = processor([sample.first, sample.second])
        truth = patch_truth(sample, inputs.geometry, patch_size=reader.patch_size)
        source, target = inputs["pixel_values"].split(1)
        started = time.perf_counter()
        readings = reader(source, target)
        seconds = time.perf_counter() - started
        sums = {way: patch_sums(found, truth, patch_size=reader.patch_size) for way, found in readings.items()}
        if picture is not None:
            shown = PatchPicture(sample, truth, inputs.geometry, reader.patch_size)
            coarse_strip(shown, {way: found for way, found in readings.items() if "soft" not in way}).save(picture)
        if not known:
            height, width = sample.first.shape[:2]
            record.add(
                reader.name,
                index,
                name=sample.name,
                epe={way: pooled([found])["all"].epe for way, found in sums.items()},
                size=f"{height}x{width}",
                occlusions=sample.occluded is not None,
                seconds=seconds,
                sums=sums,
            )


def _gather(
    record: EvaluationRecord,
    dataset: FlowDataset,
    indices: Sequence[int],
    readers: Sequence[Reader],
    short_side: int | None,
) -> DynamicsEvaluation:
    results = {}
    for reader in readers:
        lines = [record[reader.name, index] for index in indices]
        results[reader.name] = ReaderResult(
            model=reader.model,
            settings=dict(reader.settings),
            ways={way: pooled([line["sums"][way] for line in lines]) for way in lines[0]["sums"]},
            seconds=float(np.median([line["seconds"] for line in lines])),
        )
    lines = [record[readers[0].name, index] for index in indices]
    return DynamicsEvaluation(
        dataset=dataset.name,
        pairs=len(indices),
        of=len(dataset),
        short_side=short_side,
        resolutions=dict(Counter(line["size"] for line in lines)),
        occlusions=all(line["occlusions"] for line in lines),
        readers=results,
    )
