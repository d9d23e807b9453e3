"""Touching a point of one frame, and finding where the network feels it in another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.analysis.perturbation import jacobian_heatmaps, perturbation_heatmaps
from midway_hub.analysis.track_places import PatchPlaces, checked_points
from midway_hub.models.network import MidwayNetwork
from midway_hub.outputs import Motion

Progress = Callable[[str, int, int], None]
Point = tuple[float, float]


@dataclass(frozen=True)
class LevelAnswer:
    """Where one level feels a touched patch.

    Attributes:
        level: The encoder block whose features are predicted.
        heatmap: (H, W) at the frames' own size; alignment, at most 1.
        score: The heatmap's highest value on the patch grid.
        peak: Centre of the patch with that value, x and y in pixels.
        displacement: From the centre of the touched patch to the peak, in pixels.
        confidence: 1 if what is touched at the peak is felt where the first touch was, falling with the distance.
    """

    level: int
    heatmap: np.ndarray
    score: float
    peak: Point
    displacement: Point
    confidence: float


@dataclass(frozen=True)
class Touch:
    """A touched point.

    Attributes:
        at: Where, x and y in pixels of the source frame.
        box: Left, top, right and bottom of the patch there, in pixels.
        answers: One per level that was asked, coarse to fine.
    """

    at: Point
    box: tuple[float, float, float, float]
    answers: tuple[LevelAnswer, ...]


@torch.no_grad()
def touch_points(
    net: MidwayNetwork,
    frames: Sequence[Any],
    points: Sequence[Point],
    *,
    level: int | None = None,
    draws: int = 16,
    exact: bool = False,
    size: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> list[Touch]:
    """Touch points of the first frame and find where every level feels them in the second (paper section 4.4).

    Args:
        net: A network with dynamics.
        frames: Source and target of one size, each as for `MidwayImageProcessor`.
        points: x and y in pixels of the source frame, counted from 0.
        level: Ask this level alone; default: all.
        draws: Random directions per point.
        exact: Take the whole Jacobian instead of random directions.
        size: Short side in pixels that the network sees the frames at; default: as they are.
        progress: Called with what is being done, and how much of it, chunk by chunk. What it raises ends the work.

    Returns:
        One `Touch` per point, in order.

    Raises:
        ValueError: Not two frames, a point outside the frame, a level that does not exist, or no dynamics.
    """
    if len(frames) != 2:
        raise ValueError(f"a touch goes from one frame to another, got {len(frames)} frames")
    processor = net.image_processor.with_short_side(size, multiple=net.config.patch_size)
    inputs = processor(list(frames))
    places = PatchPlaces.of(inputs.geometry, net.config.patch_size)
    tokens = places.tokens(places.of_points(checked_points(points))).tolist()
    source, target = inputs["pixel_values"].to(net.device).split(1)
    there, back = net.infer_motion(source, target), net.infer_motion(target, source)
    levels = _levels(there, level)
    feel = partial(jacobian_heatmaps if exact else partial(perturbation_heatmaps, draws=draws), net)
    calls = 2 * len(levels)  # of equal length: every level is asked there and back

    def told(call: int) -> Callable[[int, int], None]:
        return lambda done, total: progress("directions", call * total + done, calls * total)

    found: list[list[LevelAnswer]] = [[] for _ in points]
    for number, asked in enumerate(levels):
        heat = feel(there, tokens, level=asked, progress=told(2 * number)).float()
        peaks = heat.flatten(1).argmax(dim=1).tolist()
        again = feel(back, peaks, level=asked, progress=told(2 * number + 1))
        returned = again.flatten(1).argmax(dim=1).tolist()
        large = processor.undo(heat.cpu()[None].expand(2, -1, -1, -1), inputs.geometry)[0]
        for answers, token, peak, again, grid, pixels in zip(found, tokens, peaks, returned, heat, large, strict=True):
            answers.append(_answer(places, asked, token, peak, again, grid, pixels))
    return [
        Touch((float(point[0]), float(point[1])), _box(places, token), tuple(answers))
        for point, token, answers in zip(points, tokens, found, strict=True)
    ]


def _answer(
    places: PatchPlaces, level: int, token: int, peak: int, again: int, grid: Tensor, pixels: Tensor
) -> LevelAnswer:
    touched, felt = places.to_points(places.centres(torch.tensor([token, peak]))).astype(float)
    start, returned = places.centres(torch.tensor([token, again]))
    missed = float(torch.linalg.vector_norm(returned - start))  # in patches
    return LevelAnswer(
        level=level,
        heatmap=pixels.numpy(),
        score=float(grid.max()),
        peak=(float(felt[0]), float(felt[1])),
        displacement=(float(felt[0] - touched[0]), float(felt[1] - touched[1])),
        confidence=math.exp(-missed),
    )


def _box(places: PatchPlaces, token: int) -> tuple[float, float, float, float]:
    centre = places.centres(torch.tensor([token]))
    (left, top), (right, bottom) = (places.to_points(centre + by)[0] for by in (-0.5, 0.5))
    return float(left), float(top), float(right), float(bottom)


def _levels(motion: Motion, level: int | None) -> tuple[int, ...]:
    if level is not None and level not in motion.levels:
        raise ValueError(f"level {level} is not one of the network's levels {motion.levels}")
    return motion.levels if level is None else (level,)
