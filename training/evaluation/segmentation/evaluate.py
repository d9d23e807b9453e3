"""Evaluate semantic segmentation as mmsegmentation does, with everything that the numbers depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from midway_hub import MidwayNetwork
from midway_hub.models.network import MissingHeadError
from midway_hub.training.data.segmentation.sample import LabelledImage, SegmentationDataset
from midway_hub.training.evaluation.items import chosen_items, picture_file, spread
from midway_hub.training.evaluation.pixels import inputs_of
from midway_hub.training.evaluation.records import EvaluationRecord, plain
from midway_hub.training.evaluation.segmentation.agreement import check_classes
from midway_hub.training.evaluation.segmentation.metrics import SegmentationMeter, SegmentationResult
from midway_hub.training.evaluation.segmentation.pictures import segmentation_strip
from midway_hub.training.evaluation.weights import describe_network

if TYPE_CHECKING:
    from midway_hub.training.data.segmentation.pipeline import SegmentationPipeline

VERSION = 1  # of the protocol: changed whenever the same prediction gives another number
ITEMS = "per_picture.jsonl"
MEASURED = "network"

Progress = Callable[[str, int, int], None]
Slide = tuple[int, int] | Literal["default"] | None

logger = logging.getLogger("midway_hub")


@dataclass(frozen=True)
class SegmentationEvaluation:
    """An evaluation of segmentation.

    Attributes:
        dataset: Name of the data set.
        pictures: Pictures that were measured.
        of: Pictures that the data set has.
        numbers: How good the labels are.
        settings: What the numbers depend on: weights, head, resizing, window, precision, device.
        differing_names: Classes that head and data set call differently.
    """

    dataset: str
    pictures: int
    of: int
    numbers: SegmentationResult
    settings: dict[str, Any]
    differing_names: list[str]


def evaluate_segmentation(
    network: MidwayNetwork,
    dataset: SegmentationDataset,
    pipeline: SegmentationPipeline | None = None,
    *,
    slide: Slide = "default",
    out: Path | None = None,
    limit: int | None = None,
    pictures: int = 8,
    progress: Progress = lambda what, done, total: None,
) -> SegmentationEvaluation:
    """Measure a network on a data set (mmsegmentation's test: spec B3).

    Pictures are resized as the pipeline says, labels are not: logits are brought to the labels' size, then argmax.

    Args:
        network: With a segmentation head, in eval mode.
        dataset: Labelled pictures.
        pipeline: How pictures are resized; default: they keep their size.
        slide: Side of the window and step in pixels, None for whole pictures, `default` for what the head says.
        out: Folder for results.json, per_picture.jsonl and pictures/. Pictures that it already holds are not segmented
            again, so an interrupted evaluation goes on where it was.
        limit: Measure at most so many pictures, evenly spread over the data set.
        pictures: Of how many a strip is drawn; none without `out`.
        progress: Called with what is done, how many pictures are done and how many there are.

    Raises:
        MissingHeadError: The network has no segmentation head.
        FileNotFoundError: The data set lacks files.
        SampleError: A file of the data set is broken.
        ValueError: Head and data set have other classes, there is nothing to measure, or the folder holds numbers of
            another configuration.
    """
    window = _window(network, slide)
    head, classes = network.segmentation_head.config, dataset.classes
    differing = check_classes(head.classes, classes, name=dataset.name)
    if differing:
        logger.warning("classes are called differently, and taken to be the same: %s", "; ".join(differing))
    indices = chosen_items(dataset, limit)
    settings = _settings(network, pipeline, window)
    record = EvaluationRecord(out, ITEMS, protocol=_protocol(dataset), measured={MEASURED: settings})
    drawn = set() if out is None else {indices[number] for number in spread(len(indices), pictures)}
    for done, index in enumerate(indices):
        progress("pictures", done, len(indices))
        picture = picture_file(record.pictures, index) if index in drawn else None
        if (MEASURED, index) not in record or (picture is not None and not picture.is_file()):
            sample = dataset[index]
            labels = predict_labels(network, sample, pipeline, slide=window)
            if picture is not None:
                segmentation_strip(sample, labels, classes=classes, palette=dataset.palette).save(picture)
            _keep(record, index, sample, labels, classes)
    progress("pictures", len(indices), len(indices))
    result = SegmentationEvaluation(
        dataset=dataset.name,
        pictures=len(indices),
        of=len(dataset),
        numbers=_pooled(record, indices, classes),
        settings=settings,
        differing_names=differing,
    )
    record.finish(plain(result))
    return result


@torch.no_grad()
def predict_labels(
    network: MidwayNetwork,
    sample: LabelledImage,
    pipeline: SegmentationPipeline | None = None,
    *,
    slide: tuple[int, int] | None,
) -> np.ndarray:
    """Segment a picture.

    Args:
        network: With a segmentation head, in eval mode.
        sample: The picture; of its labels only the size is used.
        pipeline: How it is resized; default: not at all.
        slide: Side of the window and step in pixels; None: the whole picture at once.

    Returns:
        (H, W) int64 class numbers, at the labels' size.
    """
    image = sample.image
    if pipeline is not None:
        from midway_hub.training.data.segmentation.pipeline import resize_for_test

        image = resize_for_test(image, pipeline)
    logits = network.segment(*inputs_of(network, image), slide=slide).logits
    logits = F.interpolate(logits, size=sample.labels.shape, mode="bilinear", align_corners=False)
    return logits[0].argmax(dim=0).cpu().numpy()


def _window(network: MidwayNetwork, slide: Slide) -> tuple[int, int] | None:
    if not network.has_segmentation_head:
        raise MissingHeadError(
            "this network has no segmentation head to evaluate; train one with "
            "`python -m midway_hub.training segmentation RECIPE`"
        )
    return network.segmentation_head.config.slide if slide == "default" else slide


def _protocol(dataset: SegmentationDataset) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "version": VERSION,
        "dataset": dataset.name,
        "data": dataset.fingerprint(),
        "classes": dataset.classes,
    }


def _settings(
    network: MidwayNetwork, pipeline: SegmentationPipeline | None, slide: tuple[int, int] | None
) -> dict[str, Any]:
    head = network.segmentation_head.config
    return {
        "head": head.name,
        "features": head.features,
        "layers": list(head.layers),
        "slide": None if slide is None else list(slide),
        "scale": None if pipeline is None else list(pipeline.scale),
        **describe_network(network),
    }


def _keep(
    record: EvaluationRecord, index: int, sample: LabelledImage, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    if (MEASURED, index) in record:
        return
    meter = SegmentationMeter(classes)
    meter.update(labels, sample.labels, name=sample.name)
    height, width = sample.labels.shape
    accuracy = meter.result().accuracy
    record.add(MEASURED, index, name=sample.name, accuracy=accuracy, size=f"{height}x{width}", state=meter.state())


def _pooled(record: EvaluationRecord, indices: Sequence[int], classes: tuple[str, ...]) -> SegmentationResult:
    meter = SegmentationMeter(classes)
    for index in indices:
        meter.merge(record[MEASURED, index]["state"])
    return meter.result()
