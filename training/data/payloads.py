"""The three forms in which a micro-batch leaves a reading process, and how each becomes views on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.clip import Clip
from midway_hub.training.data.flow_provider import FlowAsked
from midway_hub.training.data.synthetic import WorldSettings, render_moments
from midway_hub.training.data.views import ViewDraw, apply_views_batched

Views = dict[str, Tensor]


class Payload(Protocol):
    """The pictures of a micro-batch, in some form."""

    def views_on(self, device: torch.device, flow: FlowAsked | None = None) -> Views:
        """Return the views by group, (B, V, 3, h, w) uint8 on `device`, what goes with them, and the flow asked for."""
        ...

    def pin_memory(self) -> Payload:
        """Return the same in memory that a GPU can copy from while the program goes on."""
        ...


@dataclass(frozen=True)
class MadeViews:
    """Views that the reading process made: (B, V, 3, h, w) uint8 by group, and what goes with them."""

    views: Views

    @classmethod
    def of(cls, samples: Sequence[Views]) -> MadeViews:
        """Join the views of B clips."""
        return cls({group: torch.stack([sample[group] for sample in samples]) for group in samples[0]})

    def views_on(self, device: torch.device, flow: FlowAsked | None = None) -> Views:
        """Copy the views to the device."""
        return {group: views.to(device, non_blocking=True) for group, views in self.views.items()}

    def pin_memory(self) -> MadeViews:
        """Pin the views."""
        return MadeViews({group: views.pin_memory() for group, views in self.views.items()})


@dataclass(frozen=True)
class SameSizeClips:
    """The clips of a micro-batch whose frames have one size.

    Attributes:
        places: Where they stand in the micro-batch.
        frames: (n, T, H, W, 3) uint8 frames.
        draws: Their n views.
        clips: What is known of them beside frames.
    """

    places: list[int]
    frames: Tensor
    draws: list[ViewDraw]
    clips: list[Clip]


@dataclass(frozen=True)
class RawFrames:
    """Whole frames and what was drawn for their views, which the device then makes; one part per size of frame."""

    parts: list[SameSizeClips]

    @classmethod
    def of(cls, samples: Sequence[tuple[Clip, ViewDraw]]) -> RawFrames:
        """Sort B clips by the size of their frames."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, (clip, _) in enumerate(samples):
            places.setdefault(clip.first.shape, []).append(place)
        return cls([_same_size(samples, chosen) for chosen in places.values()])

    def views_on(self, device: torch.device, flow: FlowAsked | None = None) -> Views:
        """Copy the frames to the device, and make the views and the flow there."""
        made = []
        for part in self.parts:
            frames = part.frames.to(device, non_blocking=True).permute(0, 1, 4, 2, 3)
            views = apply_views_batched(frames, part.draws)
            if flow is not None:
                views |= flow.of_batch(frames, part.draws, part.clips)
            made.append(views)
        if len(made) == 1:
            return made[0]
        return _merge(made, [part.places for part in self.parts])

    def pin_memory(self) -> RawFrames:
        """Pin the frames."""
        return RawFrames([replace(part, frames=part.frames.pin_memory()) for part in self.parts])


@dataclass(frozen=True)
class WorldSeed:
    """A world that is yet to be rendered, and what was drawn for its views."""

    settings: WorldSettings
    seed: int
    draw: ViewDraw
    frames: int = 2


@dataclass(frozen=True)
class UnmadeWorlds:
    """Worlds that the device renders, of which it makes the views."""

    worlds: list[WorldSeed]

    def views_on(self, device: torch.device, flow: FlowAsked | None = None) -> Views:
        """Render the worlds on the device and make the views there."""
        seeds, draws = [world.seed for world in self.worlds], [world.draw for world in self.worlds]
        wanted = () if flow is None else flow.pairs
        rendered = render_moments(self.worlds[0].settings, seeds, self.worlds[0].frames, flow=wanted, device=device)
        views = apply_views_batched(rendered.frames, draws)
        if flow is not None:
            views |= flow.of_known(rendered.flow, draws)
        return views

    def pin_memory(self) -> UnmadeWorlds:
        """Return this one: a few numbers are not worth pinning."""
        return self


def _same_size(samples: Sequence[tuple[Clip, ViewDraw]], places: list[int]) -> SameSizeClips:
    frames = np.stack([samples[place][0].pictures for place in places])
    clips = [replace(samples[place][0], pictures=()) for place in places]
    return SameSizeClips(places, torch.from_numpy(frames), [samples[place][1] for place in places], clips)


def _merge(made: Sequence[Mapping[str, Tensor]], places: Sequence[list[int]]) -> Views:
    order = torch.tensor([place for part in places for place in part]).argsort()
    return {group: torch.cat([views[group] for views in made])[order.to(made[0][group].device)] for group in made[0]}
