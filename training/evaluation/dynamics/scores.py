"""End-point error and hit rates of coarse flow, pooled over the patches of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.analysis.flow_scores import HIT_RADII
from midway_hub.training.evaluation.dynamics.readings import Reading
from midway_hub.training.evaluation.dynamics.truth import PatchTruth

REGIONS = ("all", "confident", "moving")
QUANTITIES = ("epe", *(f"hit_{radius:g}" for radius in HIT_RADII))
MOVES = 0.5  # patches; what moves less is hit by the estimate that nothing moves


@dataclass(frozen=True)
class CoarseScores:
    """Numbers of one way of reading flow; NaN where no patch counts.

    Attributes:
        epe: Mean distance in pixels of the frames between estimated and true displacement.
        hits: Share in percent of patches whose estimate is at most 0.5, 1 and 2 patches off, as `hit_0.5` and so on.
        patches: How many counted; of the confident half a fraction, where patches on its edge are equally sure.
    """

    epe: float
    hits: dict[str, float]
    patches: float


def patch_sums(reading: Reading, truth: PatchTruth, *, patch_size: int) -> list[list[float]]:
    """Sum up errors and hits of a pair's patches, for `pooled`.

    Args:
        reading: Estimated flow.
        truth: True flow.
        patch_size: Side of a patch in pixels of the model input.

    Returns:
        One row for each of all patches, the half with the highest confidence, and those that move by more than half a
        patch: how many, and the sums of error in pixels of the frame and of hits.

    Raises:
        ValueError: The two are of different grids, or the estimate holds NaN.
    """
    if reading.flow.shape != truth.flow.shape:
        shapes = f"{tuple(reading.flow.shape)} for a truth of {tuple(truth.flow.shape)}"
        raise ValueError(f"a coarse flow of {shapes}; both must be (2, h, w) of one grid")
    need_finite(reading.flow, "a coarse flow")
    estimate, true = reading.flow.double()[:, truth.counts], truth.flow[:, truth.counts]
    off = torch.linalg.vector_norm(estimate - true, dim=0)
    error = torch.linalg.vector_norm((estimate - true) * truth.scale[:, None], dim=0)
    columns = torch.stack([torch.ones_like(off), error, *((off <= radius * patch_size) for radius in HIT_RADII)])
    speed = torch.linalg.vector_norm(true, dim=0)
    weights = torch.stack(
        [
            torch.ones_like(off),
            half_weights(reading.confidence[truth.counts]),
            (speed > MOVES * patch_size).double(),
        ]
    )
    return (weights @ columns.T).tolist()


def half_weights(confidence: Tensor) -> Tensor:
    """Return weights (n,) that take the half with the highest confidence.

    Those on the edge of the half, equally sure to a thousandth, share what is left of it.
    """
    if not len(confidence):
        return confidence.double()
    wanted, rounded = len(confidence) / 2, confidence.double().round(decimals=3)
    edge = rounded.sort(descending=True).values[math.ceil(wanted) - 1]
    above, at = (rounded > edge).double(), (rounded == edge).double()
    return above + at * (wanted - above.sum()) / at.sum()


def pooled(sums: Sequence[Sequence[Sequence[float]]]) -> dict[str, CoarseScores]:
    """Turn the sums of pairs into scores by region: `all`, `confident` and `moving`."""
    found = {}
    for region, row in zip(REGIONS, np.sum(np.array(sums), axis=0), strict=True):
        with np.errstate(invalid="ignore"):
            means = row[1:] / (row[0] if row[0] > 0 else np.nan)
        hits = {name: 100 * float(mean) for name, mean in zip(QUANTITIES[1:], means[1:], strict=True)}
        found[region] = CoarseScores(epe=float(means[0]), hits=hits, patches=round(float(row[0]), 3))
    return found
