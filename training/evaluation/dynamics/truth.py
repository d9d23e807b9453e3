"""The true displacement of every patch of a pair, where it can be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.analysis.flow_scores import truth_at_patches
from midway_hub.processing.geometry import Geometry
from midway_hub.training.data.flow.sample import FlowSample


@dataclass(frozen=True)
class PatchTruth:
    """What the patches of a pair do.

    Attributes:
        flow: (2, h, w) float64 in pixels of the model input; 0 where it does not count.
        counts: (h, w) bool: the centre's true flow is known, and the centre is seen in the target.
        scale: Pixels of the frame per pixel of the model input, (2,): across, down.
    """

    flow: Tensor
    counts: Tensor
    scale: Tensor


def patch_truth(sample: FlowSample, geometry: Geometry, *, patch_size: int) -> PatchTruth:
    """Bring a pair's true flow to the patches of the model input.

    A patch's flow is the mean of the pixels around its centre. The patch counts if all of these are valid, not
    occluded, and still inside the target frame.

    Args:
        sample: The pair.
        geometry: Where its frames lie in the model input, uncropped.
        patch_size: Side of a patch in pixels.
    """
    placement, cells = geometry.placements[0], sample.flow_scale
    counted = torch.from_numpy(sample.valid & _stays(sample))
    flow = torch.from_numpy(np.where(sample.valid[..., None], sample.flow, 0).astype(np.float64)).movedim(-1, 0)
    resized = [cells * side for side in placement.resized]
    flow = F.interpolate(flow[None], resized, mode="nearest-exact")
    counted = F.interpolate(counted[None, None].double(), resized, mode="nearest-exact")[:, 0] > 0
    scale = torch.tensor([placement.source[axis] / placement.resized[axis] for axis in (1, 0)], dtype=torch.float64)
    margin = [0, cells * geometry.model_size[1] - resized[1], 0, cells * geometry.model_size[0] - resized[0]]
    centres, counts = truth_at_patches(
        F.pad(flow / scale[:, None, None], margin), valid=F.pad(counted, margin), patch_size=cells * patch_size
    )
    return PatchTruth(centres[0], counts[0], scale)


def _stays(sample: FlowSample) -> np.ndarray:
    """Where a cell of the flow is seen in the target, as far as is known: (sH, sW)."""
    cells, (height, width) = sample.flow_scale, sample.first.shape[:2]
    rows, columns = ((np.arange(cells * side) + 0.5) / cells for side in (height, width))
    x, y = columns + sample.flow[..., 0], rows[:, None] + sample.flow[..., 1]
    stays = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    if sample.occluded is not None:
        stays &= ~sample.occluded.repeat(cells, axis=0).repeat(cells, axis=1)
    return np.asarray(stays)
