"""Keypoints of a video's first frame carried through the video, as JHMDB's protocol does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.analysis.propagation import propagate_maps
from midway_hub.analysis.propagation_frames import Encoder, chained, encoded_frames
from midway_hub.analysis.propagation_protocols import PropagationProtocol

SIGMA = 0.5
"""Spread of a keypoint's Gaussian on the patch grid, in patches; it is cut off at three times that."""


def propagate_keypoints(
    encode: Encoder,
    frames: Iterable[Any],
    keypoints: np.ndarray,
    protocol: PropagationProtocol,
    *,
    device: torch.device | str = "cpu",
) -> Iterator[np.ndarray]:
    """Carry keypoints of the first frame through a video; each frame is read and encoded once.

    Args:
        encode: As for `propagate_labels`.
        frames: As for `propagate_labels`.
        keypoints: (K, 2), x and y in pixels of the first frame, from 0.
        protocol: How.
        device: Where it is computed.

    Yields:
        (K, 2) float64 x and y in pixels of each frame, on a grid of whole patches in the first; NaN for keypoints that
        are lost, such as those that lie outside of the first frame.

    Raises:
        ValueError: Keypoints of the wrong shape; and as `propagate_labels`.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"keypoints must be (K, 2), x and y of at least one, got {points.shape}")
    encoded = encoded_frames(encode, frames, protocol, device=device)
    first = next(encoded, None)
    if first is None:
        return
    height, width = first.features.shape[-2:]
    cell = np.array([first.own_size[1] / width, first.own_size[0] / height])  # a patch's width and height in pixels
    seeds = keypoint_seeds(torch.from_numpy(points / cell).float(), (height, width))
    features = (frame.features for frame in chained(first, encoded))
    for soft in propagate_maps(features, seeds, protocol):
        yield read_keypoints(soft, patches=protocol.keypoint_patches).cpu().double().numpy() * cell


def keypoint_seeds(points: Tensor, grid: tuple[int, int]) -> Tensor:
    """Draw a Gaussian around the patch that each keypoint is nearest to.

    Args:
        points: (K, 2), x and y in patches: patch n starts at n.
        grid: Patch grid (h, w).

    Returns:
        (K, h, w) float32, 1 in the keypoint's patch; 0 everywhere for a keypoint that is far outside, or NaN.
    """
    height, width = grid
    centre = (points + 0.5).floor()
    across = (torch.arange(width, device=points.device) - centre[:, :1]).abs()  # (K, w)
    down = (torch.arange(height, device=points.device) - centre[:, 1:]).abs()  # (K, h)
    squared = down[:, :, None] ** 2 + across[:, None] ** 2
    near = (down[:, :, None] <= 3 * SIGMA) & (across[:, None] <= 3 * SIGMA)
    return torch.where(near, (-squared / (2 * SIGMA**2)).exp(), 0.0)


def read_keypoints(soft: Tensor, *, patches: int) -> Tensor:
    """Read where keypoints are: the mean place of the patches that have most of each, weighted by how much.

    Args:
        soft: (K, h, w).
        patches: How many patches count.

    Returns:
        (K, 2), x and y in patches; NaN for keypoints of which there is nothing.
    """
    width = soft.shape[2]
    weights, where = soft.flatten(1).topk(min(patches, soft.flatten(1).shape[1]), dim=1)
    total = weights.sum(dim=1)
    x, y = (((places * weights).sum(dim=1) / total) for places in (where % width, where // width))
    return torch.stack([x, y], dim=1).masked_fill((total <= 0)[:, None], torch.nan)
