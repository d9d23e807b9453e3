"""How a video moves: the path of its motion latents, and which of its moments move alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.models.network import MidwayNetwork


@dataclass(frozen=True)
class MotionPath:
    """The motion of a video at one level; a moment is a pair of consecutive frames.

    Attributes:
        points: (T, C), the moments' first principal components.
        explained: (C,), each component's share of the variance.
        distances: (T, T), between every two moments: the root mean square difference of their latents.
    """

    points: Tensor
    explained: Tensor
    distances: Tensor


@torch.no_grad()
def motion_latents(net: MidwayNetwork, frames: Iterable[Tensor], *, batch: int = 4) -> Iterator[tuple[Tensor, ...]]:
    """Infer the motion between consecutive frames of a video, a few at a time.

    Args:
        net: A network with dynamics.
        frames: (3, H, W) each, normalised, all of one size.
        batch: Pairs computed at once.

    Yields:
        One (b, M, Dm) per level, coarse to fine, of the next b pairs.

    Raises:
        ValueError: A frame is unfit, the network has no dynamics, or motion is not finite.
    """
    held: list[Tensor] = []
    for frame in frames:
        held.append(frame)
        if len(held) == batch + 1:
            yield _latents(net, held)
            held = held[-1:]
    if len(held) > 1:
        yield _latents(net, held)


def motion_path(latents: Tensor, *, components: int = 2) -> MotionPath:
    """Lay out the moments of a video by how they move.

    Args:
        latents: (T, M, Dm), motion latents of one level, T at least 2.
        components: Number C of principal components.

    Returns:
        The moments' coordinates and distances. Signs are fixed: each component's largest weight is positive.

    Raises:
        ValueError: Latents of another shape, fewer than two moments, or NaN or infinity.
    """
    if latents.ndim != 3 or len(latents) < 2:
        raise ValueError(f"latents must be (T, M, Dm) of at least 2 moments, got {tuple(latents.shape)}")
    need_finite(latents, "the motion")
    rows = latents.flatten(1).double()
    centred = rows - rows.mean(dim=0)
    _, lengths, weights = torch.linalg.svd(centred, full_matrices=False)
    weights = weights[:components]
    signs = weights.gather(1, weights.abs().argmax(dim=1, keepdim=True)).sign()
    points, variances = centred @ (weights * signs).T, lengths.square()
    missing = components - points.shape[1]  # two moments have one component
    return MotionPath(
        points=torch.nn.functional.pad(points, (0, missing)),
        explained=torch.nn.functional.pad(variances[:components] / variances.sum().clamp_min(1e-30), (0, missing)),
        distances=torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") / rows.shape[1] ** 0.5,
    )


def nearest_moments(distances: Tensor, *, count: int = 1, apart: int = 1) -> Tensor:
    """Find, for every moment of a video, those that move most like it.

    Args:
        distances: (T, T), between moments.
        count: How many.
        apart: Moments that follow each other move alike; only those at least so far from it in the video count.

    Returns:
        (T, count) int64, the nearest first; -1 where there are no more.

    Raises:
        ValueError: Not square, or a number is below 1.
    """
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be (T, T), got {tuple(distances.shape)}")
    if count < 1 or apart < 1:
        raise ValueError(f"count and apart must be at least 1, got {count} and {apart}")
    moments = torch.arange(len(distances), device=distances.device)
    allowed = (moments[:, None] - moments).abs() >= apart
    ordered = distances.masked_fill(~allowed, torch.inf).sort(dim=1, stable=True)
    found = ordered.indices.masked_fill(ordered.values.isinf(), -1)[:, :count]
    return torch.nn.functional.pad(found, (0, count - found.shape[1]), value=-1)


def _latents(net: MidwayNetwork, frames: list[Tensor]) -> tuple[Tensor, ...]:
    stacked = torch.stack(frames)
    latents = net.infer_motion(stacked[:-1], stacked[1:]).latents
    for level in latents:
        need_finite(level, "the motion")
    return latents
