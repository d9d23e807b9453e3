"""Pairs of a video's frames to learn flow from: as the network sees them, and as they look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from midway_hub.dense.propagated_files import open_frames
from midway_hub.dense.writing import Progress
from midway_hub.models.correlation.head import STRIDE
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import Normalisation

MOST_PAIRS = 50
LEAST_PAIRS = 6
CROP = (192, 256)
SHORT_SIDE = 384


@dataclass(frozen=True)
class Pair:
    """Two frames as the network sees them, and in [0, 1]; (1, 3, H, W) each."""

    seen: tuple[Tensor, Tensor]
    pixels: tuple[Tensor, Tensor]

    def swapped(self) -> Pair:
        """Return the same the other way round in time."""
        return Pair(self.seen[::-1], self.pixels[::-1])

    def cropped(self, draw: np.random.Generator) -> Pair:
        """Return a crop of at most 192x256 pixels of both frames, its place drawn."""
        height, width = self.seen[0].shape[-2:]
        tall, wide = min(CROP[0], height), min(CROP[1], width)
        top, left = int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1))
        cut = (..., slice(top, top + tall), slice(left, left + wide))
        return Pair((self.seen[0][cut], self.seen[1][cut]), (self.pixels[0][cut], self.pixels[1][cut]))


def read_pairs(
    net: MidwayNetwork, video: str | Path, *, every: int, size: int | None, reader: str, progress: Progress
) -> list[Pair]:
    """Read at most 50 pairs, spread over a video, as the network sees them."""
    with open_frames(video, start=0, every=1, reader=reader) as clip:
        count = len(clip.names) - every
        if count < LEAST_PAIRS:
            raise ValueError(
                f"{video} has {max(count, 0)} pairs of frames {every} apart; adaptation needs {LEAST_PAIRS} at least"
            )
        wanted = {int(index) for index in np.linspace(0, count - 1, min(MOST_PAIRS, count)).round()}
        kept: dict[int, Tensor] = {}
        needed = wanted | {index + every for index in wanted}
        for index, frame in enumerate(clip.frames):
            if index in needed:
                kept[index] = _input(net, frame, size)
                progress("reading", index + 1, len(clip.names))
    numbers = net.image_processor.normalisation
    return [
        Pair((kept[index], kept[index + every]), (_pixels(kept[index], numbers), _pixels(kept[index + every], numbers)))
        for index in sorted(wanted)
    ]


def _input(net: MidwayNetwork, frame: np.ndarray, size: int | None) -> Tensor:
    side = min(SHORT_SIDE, *frame.shape[:2]) if size is None else size
    processor = net.image_processor.with_short_side(side, multiple=1)
    seen = processor([frame])["pixel_values"].to(net.device, net.dtype)
    height, width = (length // STRIDE * STRIDE for length in seen.shape[-2:])
    if min(height, width) < 2 * STRIDE:
        raise ValueError(
            f"frames of {seen.shape[-2]}×{seen.shape[-1]} pixels are too small to adapt to; wanted 16 at least"
        )
    return seen[..., :height, :width]


def _pixels(seen: Tensor, numbers: Normalisation) -> Tensor:
    mean, std = (seen.new_tensor(values).view(1, 3, 1, 1) for values in (numbers.mean, numbers.std))
    return (seen * std + mean).float().clamp(0, 1)
