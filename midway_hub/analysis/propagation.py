"""Labels of a video's first frame carried through the video by the similarity of features."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.analysis.propagation_frames import Encoder, chained, encoded_frames
from midway_hub.analysis.propagation_maps import label_seeds, read_labels
from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.heads import IGNORE

PAIRS_AT_A_TIME = 2**24
"""Similarities that are in memory at a time: 64 MiB of them, and as much again for those that are chosen among."""


def propagate_labels(
    encode: Encoder,
    frames: Iterable[Any],
    first_labels: np.ndarray,
    protocol: PropagationProtocol,
    *,
    device: torch.device | str = "cpu",
) -> Iterator[np.ndarray]:
    """Carry the labels of the first frame through a video; each frame is read and encoded once.

    Args:
        encode: Turns normalised frames (1, 3, H, W) of the protocol's size into features (1, D, h, w): those of a
            network by `network_features`, or any other. A `FrameEncoder` says how its frames are normalised and what
            sizes it takes; for any other function, the protocol says so.
        frames: Frames of one size, each as for `midway_hub.processing.load_frame`.
        first_labels: (H, W) whole numbers from 0, of any object or class in any order; 255 where nothing is known,
            which is carried nowhere.
        protocol: How.
        device: Where it is computed; `encode` gets its frames there.

    Yields:
        (H, W) uint8 labels of each frame, at its own size; the numbers are among those of the first frame.

    Raises:
        ValueError: Labels that are no labels or of another size than the frames, frames of changing size, features of
            the wrong shape or that are not finite.
    """
    labels, ids = _checked_labels(first_labels)
    encoded = encoded_frames(encode, frames, protocol, device=device, size=tuple(labels.shape))  # type: ignore[arg-type]
    first = next(encoded, None)
    if first is None:
        return
    seeds = label_seeds(labels, ids, first.size, first.features.shape[-2:], how=protocol.seeds)
    features = (frame.features for frame in chained(first, encoded))
    for number, soft in enumerate(propagate_maps(features, seeds, protocol)):
        if number == 0 and protocol.first_frame == "given":
            yield labels.numpy()
        else:
            yield read_labels(soft, ids, first.size, tuple(labels.shape), normalise=protocol.normalise)


def propagate_maps(
    features: Iterable[Tensor], seeds: Tensor, protocol: PropagationProtocol, *, pairs: int = PAIRS_AT_A_TIME
) -> Iterator[Tensor]:
    """Carry soft labels on the patch grid from the first frame to all others.

    Args:
        features: (D, h, w) of each frame, in order.
        seeds: (C, h, w), how much of each of C labels there is in each patch of the first frame.
        protocol: How.
        pairs: Similarities that may be in memory at a time.

    Yields:
        (C, h, w) float32 per frame; for the first one, `seeds`.

    Raises:
        ValueError: The shapes do not fit, or features are not finite.
    """
    recent: deque[_Labelled] = deque(maxlen=protocol.context)
    first: _Labelled | None = None
    grid = tuple(seeds.shape[-2:])
    for map_of in features:
        unit = _unit_features(map_of, grid)
        if first is None:
            first = _Labelled(unit, seeds.to(unit).flatten(1))
            recent.extend([first] * protocol.context if protocol.repeat_first else [])
            yield seeds.to(unit)
            continue
        soft = _attend(unit, [first, *recent], grid, protocol, pairs)
        recent.append(_Labelled(unit, soft))
        yield soft.unflatten(1, grid)


class _Labelled(NamedTuple):
    """Unit features (N, D) and soft labels (C, N) of a frame."""

    features: Tensor
    labels: Tensor


def _unit_features(features: Tensor, grid: tuple[int, ...]) -> Tensor:
    if features.ndim != 3 or tuple(features.shape[-2:]) != grid:
        raise ValueError(f"features must be (D, {grid[0]}, {grid[1]}) in every frame, got {tuple(features.shape)}")
    need_finite(features, "a frame's feature map")
    return F.normalize(features.detach().flatten(1).T.float(), dim=1)


@torch.no_grad()
def _attend(
    query: Tensor, context: list[_Labelled], grid: tuple[int, ...], protocol: PropagationProtocol, pairs: int
) -> Tensor:
    """Return the soft labels (C, N) that patches (N, D) take from the context, its first frame first."""
    keys = torch.cat([frame.features for frame in context])
    labels = torch.cat([frame.labels for frame in context], dim=1)
    chunks = []
    step = max(1, pairs // len(keys))
    for start in range(0, len(query), step):
        similarity = query[start : start + step] @ keys.T
        if protocol.radius is not None:
            near = _near(torch.arange(start, start + len(similarity), device=query.device), grid, protocol)
            in_first = torch.ones_like(near) if protocol.first_everywhere else near
            far = ~torch.cat([in_first, *[near] * (len(context) - 1)], dim=1)
            similarity.masked_fill_(far, -torch.inf)
        best, where = similarity.topk(min(protocol.top_k, len(keys)), dim=1)
        weights = (best / protocol.temperature).softmax(dim=1)
        chunks.append((labels[:, where] * weights).sum(dim=2))
    return torch.cat(chunks, dim=1)


def _near(patches: Tensor, grid: tuple[int, ...], protocol: PropagationProtocol) -> Tensor:
    """Tell for some patches (n,), by number, which of all patches (N,) they look at: (n, N) bool."""
    height, width = grid
    every = torch.arange(height * width, device=patches.device)
    rows = (patches[:, None] // width - every // width).abs()
    columns = (patches[:, None] % width - every % width).abs()
    if protocol.neighbourhood == "square":
        return torch.maximum(rows, columns) <= protocol.radius
    return rows**2 + columns**2 < protocol.radius**2  # type: ignore[operator]  # asked only where there is a radius


def _checked_labels(labels: np.ndarray) -> tuple[Tensor, list[int]]:
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers of shape (height, width), got {labels.dtype} {labels.shape}")
    found = np.unique(labels)
    if not found.size or found[0] < 0 or found[-1] > IGNORE:
        raise ValueError(
            f"labels must be from 0 to {IGNORE - 1}, or {IGNORE}, got {found[[0, -1]] if found.size else 'none'}"
        )
    ids = [int(label) for label in found if label != IGNORE]
    if not ids:
        raise ValueError(
            f"the first frame's labels are all {IGNORE}, which means that nothing is known; label something"
        )
    return torch.from_numpy(labels.astype(np.uint8)), ids
