"""Worlds out of seeds: pairs of frames and clips, with everything that is known about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic.atlas import Atlas, atlas
from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.effects import Effects, draw_effects, expose
from midway_hub.training.data.synthetic.lens import draw_lens
from midway_hub.training.data.synthetic.looks import Looks, draw_looks
from midway_hub.training.data.synthetic.motion import Motion
from midway_hub.training.data.synthetic.placement import draw_placement
from midway_hub.training.data.synthetic.render import render
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.truth import Moment, correspondence
from midway_hub.training.data.synthetic.view import camera, grid, locate

NUMBERS = 1536  # random numbers of one world, more than the largest needs
LATER_NUMBERS = 256  # likewise, of what was added later
PORTION = 1 << 20  # pixels rendered at once on a device; each takes some hundred bytes per layer
CPU_PORTION = 2**14


@dataclass(frozen=True)
class WorldPairs:
    """Frame pairs of B worlds and what is known about them.

    Attributes:
        first: (B, 3, H, W) uint8 RGB.
        second: (B, 3, H, W) uint8 RGB.
        flow: (B, 2, H, W) float32 pixels that first-frame points move, x right and y down.
        backward_flow: (B, 2, H, W) likewise, of second-frame points to the first.
        occluded: (B, H, W) bool, whether a first-frame pixel is hidden in the second frame or out of it.
        backward_occluded: (B, H, W) bool, whether a second-frame pixel is hidden in the first or out of it.
        labels: (B, H, W) uint8 class of the first frame's pixels, by `CLASSES`.
        second_labels: (B, H, W) uint8 class of the second frame's pixels.
    """

    first: Tensor
    second: Tensor
    flow: Tensor
    backward_flow: Tensor
    occluded: Tensor
    backward_occluded: Tensor
    labels: Tensor
    second_labels: Tensor


@dataclass(frozen=True)
class WorldClip:
    """T consecutive frames of one world; flow and occlusion belong to frames 0 .. T - 2 and the next one each.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB.
        flow: (T - 1, 2, H, W) float32 pixels from each frame to the next.
        backward_flow: (T - 1, 2, H, W) float32 pixels from the next frame back to each.
        occluded: (T - 1, H, W) bool.
        backward_occluded: (T - 1, H, W) bool.
        labels: (T, H, W) uint8.
    """

    frames: Tensor
    flow: Tensor
    backward_flow: Tensor
    occluded: Tensor
    backward_occluded: Tensor
    labels: Tensor


class Worlds:
    """B drawn worlds on a device, of which any frame can be made.

    Args:
        settings: What worlds are made of.
        seeds: One per world.
        device: Where to render.
    """

    def __init__(self, settings: WorldSettings, seeds: Sequence[int], device: torch.device) -> None:
        self.settings, self.device = settings, device
        draws, later = Draws(seeds, NUMBERS), Draws(seeds, LATER_NUMBERS, block=1)
        placement = draw_placement(settings, draws, later)
        used = np.logical_or.reduce(placement.present, axis=0)  # by any of the worlds
        self.motion: Motion = placement.motion.trimmed(used)
        self.looks: Looks = draw_looks(settings, draws, later, placement).trimmed(used).to(device)
        self.effects: Effects = draw_effects(settings.effects, draws, later)
        self.atlas: Atlas = atlas(settings.textures, device)
        height, width = settings.size
        side = min(settings.size)
        self.lens = draw_lens(settings.motion, later, side, device) if settings.motion.warp else None
        self._pixels = np.array([[side, 0, (width - 1) / 2], [0, side, (height - 1) / 2], [0, 0, 1.0]])

    def moment(self, time: float | np.ndarray, rows: np.ndarray | slice = slice(None)) -> Moment:
        """Return where everything is at a time in frames, in all worlds or in some."""
        times = np.broadcast_to(time, self.motion.focal.shape)[:, None]
        to_pixel = np.ascontiguousarray((self._pixels @ self.motion.at(times)[:, 0])[rows])
        looks = self.looks if isinstance(rows, slice) else self.looks.rows(torch.from_numpy(rows).to(self.device))
        seen = camera(to_pixel, self.device)
        x, y = grid(self.settings.size, self.device)
        if self.lens is None:
            return Moment(to_pixel, looks, seen, locate(looks, seen, x, y))
        # Beyond frame 1 the warp stays as it is: a stronger one would show some places twice.
        passed = torch.from_numpy(self.motion.passed(times)[:, 0].clip(-1, 1)).float().to(self.device)
        lens = self.lens.at(passed, rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device))
        size = (len(to_pixel), *self.settings.size)
        bent = lens.seen(x[:, 0].expand(size), y[:, 0].expand(size))
        return Moment(to_pixel, looks, seen, locate(looks, seen, *(axis[:, None] for axis in bent)), lens)

    def frame(self, number: int, moment: Moment, *, last: int = 1) -> Tensor:
        """Return frame `number` of every world, (B, 3, H, W) uint8, given its moment; frame `last` is at time 1."""
        pictures = render(moment.looks, moment.seen, moment.places, self.atlas)
        blurred = np.flatnonzero(self.effects.shutter)
        if len(blurred):
            rows = torch.from_numpy(blurred).to(self.device)
            samples = self.settings.effects.blur_samples
            for part in np.linspace(-0.5, 0.5, samples):
                if part:
                    other = self.moment(number / last + part * self.effects.shutter, blurred)
                    pictures[:, rows] += render(other.looks, other.seen, other.places, self.atlas)
            pictures[:, rows] /= samples
        times = np.full((len(self.effects.shutter), 1), number / last)
        return expose(pictures, self.effects, number, self.motion.passed(times)[:, 0])


def render_pairs(settings: WorldSettings, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> WorldPairs:
    """Render frame pairs with exact flow, occlusion and segmentation.

    Args:
        settings: What worlds are made of.
        seeds: One per pair, from 0 to 2^63 - 1; from 2^62 on they are held out (`held_out_seeds`).
        device: Where to render.

    Returns:
        The pairs; each is a pure function of settings and seed, whatever else is in the batch.

    Raises:
        ValueError: No seeds, or one out of range.
    """
    parts = [_pairs(worlds) for worlds in _chunks(settings, seeds, device)]
    return WorldPairs(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(WorldPairs)))


@dataclass(frozen=True)
class WorldMoments:
    """T frames of each of B worlds, evenly from the first frame of `render_pairs` to its second.

    Attributes:
        frames: (B, T, 3, H, W) uint8 RGB.
        flow: By (frame, other frame), (B, 2, H, W) float32 pixels, and (B, H, W) bool, whether the point is seen there.
    """

    frames: Tensor
    flow: dict[tuple[int, int], tuple[Tensor, Tensor]]


def render_moments(
    settings: WorldSettings,
    seeds: Sequence[int],
    frames: int = 2,
    *,
    flow: Sequence[tuple[int, int]] = (),
    device: torch.device | str = "cpu",
) -> WorldMoments:
    """Render frames of worlds, and the exact flow between some of them.

    Args:
        settings: What worlds are made of.
        seeds: As for `render_pairs`.
        frames: How many; two are those of `render_pairs`.
        flow: Which flow is wanted, by (frame, other frame).
        device: Where to render.
    """
    parts = [_moments(worlds, frames, flow) for worlds in _chunks(settings, seeds, device)]
    joined = {
        pair: (torch.cat([part.flow[pair][0] for part in parts]), torch.cat([part.flow[pair][1] for part in parts]))
        for pair in flow
    }
    return WorldMoments(torch.cat([part.frames for part in parts]), joined)


def _moments(worlds: Worlds, frames: int, flow: Sequence[tuple[int, int]]) -> WorldMoments:
    last = max(1, frames - 1)
    moments = [worlds.moment(number / last) for number in range(frames)]
    found = {(i, j): correspondence(moments[i], moments[j]) for i, j in flow}
    made = [worlds.frame(number, moment, last=last) for number, moment in enumerate(moments)]
    return WorldMoments(torch.stack(made, dim=1), {pair: (moved, ~hidden) for pair, (moved, hidden) in found.items()})


def render_clip(settings: WorldSettings, seed: int, frames: int, *, device: torch.device | str = "cpu") -> WorldClip:
    """Render several consecutive frames of one world; the first two are those of `render_pairs`.

    Args:
        settings: What worlds are made of.
        seed: The world.
        frames: How many frames, at least 2.
        device: Where to render.

    Raises:
        ValueError: Fewer than two frames, or a seed out of range.
    """
    if frames < 2:
        raise ValueError(f"a clip has at least 2 frames, got {frames}")
    worlds = Worlds(settings, [seed], torch.device(device))
    moments = [worlds.moment(number) for number in range(frames)]
    onward = [correspondence(here, there) for here, there in pairwise(moments)]
    back = [correspondence(there, here) for here, there in pairwise(moments)]
    return WorldClip(
        frames=torch.cat([worlds.frame(number, moment) for number, moment in enumerate(moments)]),
        flow=torch.cat([flow for flow, _ in onward]),
        backward_flow=torch.cat([flow for flow, _ in back]),
        occluded=torch.cat([hidden for _, hidden in onward]),
        backward_occluded=torch.cat([hidden for _, hidden in back]),
        labels=torch.cat([moment.labels() for moment in moments]),
    )


def _chunks(settings: WorldSettings, seeds: Sequence[int], device: torch.device | str) -> Iterator[Worlds]:
    """Worlds in the portions a device renders at once: on a CPU few, as more would only leave the cache."""
    if not len(seeds):
        raise ValueError("there are no worlds without seeds; give at least one seed")
    device = torch.device(device)
    pixels = CPU_PORTION if device.type == "cpu" else PORTION
    portion = max(1, pixels // math.prod(settings.size))
    for start in range(0, len(seeds), portion):
        yield Worlds(settings, seeds[start : start + portion], device)


def _pairs(worlds: Worlds) -> WorldPairs:
    first, second = worlds.moment(0), worlds.moment(1)
    flow, occluded = correspondence(first, second)
    backward_flow, backward_occluded = correspondence(second, first)
    return WorldPairs(
        first=worlds.frame(0, first),
        second=worlds.frame(1, second),
        flow=flow,
        backward_flow=backward_flow,
        occluded=occluded,
        backward_occluded=backward_occluded,
        labels=first.labels(),
        second_labels=second.labels(),
    )
