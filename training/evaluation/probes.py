"""Measurements of the heads while they train, on the first pairs or pictures of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from midway_hub import MidwayNetwork
from midway_hub.training.data.flow.sample import FlowDataset
from midway_hub.training.data.segmentation.sample import SegmentationDataset
from midway_hub.training.evaluation.flow.metrics import FlowMeter
from midway_hub.training.evaluation.pixels import inputs_of
from midway_hub.training.evaluation.segmentation.agreement import check_classes
from midway_hub.training.evaluation.segmentation.metrics import SegmentationMeter

HeadProbe = Callable[[MidwayNetwork], dict[str, float]]


def flow_probe(dataset: FlowDataset, limit: int | None = None, *, overlap: float | None = None) -> HeadProbe:
    """Return a measurement of a network's flow.

    What it gives: `flow/epe` in pixels, `flow/bad_1` and `flow/fl_all` in percent, pooled over pixels, and
    `flow/epe_over_zero`, below 1 where the network beats the estimate that nothing moves.

    Args:
        dataset: Held-out pairs.
        limit: How many of them, from the first; default: all.
        overlap: Estimate in tiles of the training crop that overlap by this share; default: as the head says.

    Raises:
        ValueError: There is nothing to measure on.
    """
    tiles: dict[str, Any] = {} if overlap is None else {"tile": "training", "overlap": overlap}
    pairs = _count(dataset, limit)

    @torch.no_grad()
    def measure(network: MidwayNetwork) -> dict[str, float]:
        found, still = FlowMeter(), FlowMeter()
        for index in range(pairs):
            sample = dataset[index]
            source, target = inputs_of(network, sample.first, sample.second)
            flow = network.flow(source, target, **tiles).flow[0].float().cpu().numpy()
            found.update(flow, sample)
            still.update(np.zeros_like(flow), sample)
        scores, zero = found.result().pooled, still.result().pooled["epe"]
        numbers = {f"flow/{name}": scores[name] for name in ("epe", "bad_1", "fl_all")}
        return {**numbers, "flow/epe_over_zero": scores["epe"] / max(zero, 1e-12)}

    return measure


def segmentation_probe(dataset: SegmentationDataset, limit: int | None = None) -> HeadProbe:
    """Return a measurement of a network's segmentation, as its head is configured, at the pictures' own size.

    What it gives, in percent: `segmentation/miou`, `segmentation/accuracy`, `segmentation/class_accuracy`.

    Args:
        dataset: Held-out pictures.
        limit: How many of them, from the first; default: all.

    Raises:
        ValueError: There is nothing to measure on.
    """
    pictures = _count(dataset, limit)

    @torch.no_grad()
    def measure(network: MidwayNetwork) -> dict[str, float]:
        check_classes(network.segmentation_head.config.classes, dataset.classes, name=dataset.name)
        meter = SegmentationMeter(dataset.classes)
        for index in range(pictures):
            sample = dataset[index]
            labels = network.segment(*inputs_of(network, sample.image)).labels[0].cpu().numpy()
            meter.update(labels, sample.labels, name=sample.name)
        scores = meter.result()
        return {f"segmentation/{name}": getattr(scores, name) for name in ("miou", "accuracy", "class_accuracy")}

    return measure


def _count(dataset: FlowDataset | SegmentationDataset, limit: int | None) -> int:
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise ValueError(f"{dataset.name} gives {count} items to measure on; wanted at least 1")
    return count
