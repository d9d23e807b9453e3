"""The flow that a method asks for: had from whom it is had from, and cut to the views that it goes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.flow_io import FlowFileError
from midway_hub.training.data.clip import Clip, KnownFlow, SampleError
from midway_hub.training.data.flow_provider.crop import crop_flow
from midway_hub.training.data.flow_provider.masks import valid_pixels
from midway_hub.training.data.flow_provider.protocol import FlowProvider
from midway_hub.training.data.flow_provider.providers import open_flow_provider
from midway_hub.training.data.flow_provider.settings import FILES, WORLD, FlowProviderSettings
from midway_hub.training.data.needs import Needs
from midway_hub.training.data.views.draw import ViewDraw

Pair = tuple[int, int]
Fields = Mapping[Pair, tuple[Tensor, Tensor]]
"""By (frame, other frame), flow (B, 2, H, W) and validity (B, H, W)."""


@dataclass
class FlowAsked:
    """Which flow goes into a batch, on which views, and from whom. The provider is opened where it is first asked.

    Attributes:
        pairs: (frame, other frame).
        on: The group of views in whose pixels it is.
        size: Height and width of those views.
        settings: Who tells it.
        device: Where networks run.
    """

    pairs: tuple[Pair, ...]
    on: str
    size: tuple[int, int]
    settings: FlowProviderSettings
    device: torch.device | str = "cpu"
    _provider: FlowProvider | None = field(default=None, repr=False)

    @classmethod
    def by(cls, needs: Needs, settings: FlowProviderSettings, device: torch.device | str = "cpu") -> FlowAsked | None:
        """Return what a method asks for, None where that is nothing."""
        if not needs.flow or needs.flow_on is None:
            return None
        return cls(needs.flow, needs.flow_on, needs.crops[needs.flow_on].size, settings, device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_provider": None}

    @property
    def provider(self) -> FlowProvider:
        """Who is asked; opened now."""
        if self._provider is None:
            self._provider = open_flow_provider(self.settings, device=self.device)
        if self._provider is None:
            raise ValueError(
                "this method needs optical flow, and only synthetic worlds know their own: set data.flow.provider to "
                "dis, raft_large, raft_small, ptlflow:NAME, midway:NAME or files"
            )
        return self._provider

    @property
    def comes_with_data(self) -> bool:
        """Whether the data bring the flow along, or it is looked up by their names: no device is needed for it."""
        return self.settings.provider in (WORLD, FILES)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the flow depends on, JSON-able."""
        known = {"provider": WORLD} if self.settings.provider == WORLD else self.provider.fingerprint()
        return {**known, "occlusion": self.settings.occlusion}

    def with_flow(self, clip: Clip) -> Clip:
        """Return a clip with the flow that is asked for.

        Raises:
            SampleError: A file is missing or broken.
        """
        missing = [pair for pair in self.pairs if pair not in clip.flow]
        if not missing:
            return clip
        frames = torch.from_numpy(np.stack(clip.pictures))[None].permute(0, 1, 4, 2, 3)
        try:
            found = self._told(frames, [clip], missing)
        except (FlowFileError, OSError) as error:
            raise SampleError(clip.name, str(error)) from error
        told = {pair: KnownFlow(flow[0].numpy(), valid[0].numpy()) for pair, (flow, valid) in found.items()}
        return replace(clip, flow={**clip.flow, **told})

    def of_clip(self, clip: Clip, draw: ViewDraw) -> dict[str, Tensor]:
        """Return `flow/i/j` (2, h, w) and `valid/i/j` (h, w) of one clip.

        Raises:
            SampleError: A file is missing or broken.
        """
        known = _joined([self.with_flow(clip)], self.pairs)
        return {name: found[0] for name, found in self.of_known(known, [draw]).items()}

    def of_batch(self, frames: Tensor, draws: Sequence[ViewDraw], clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Return `flow/i/j` (B, 2, h, w) and `valid/i/j` (B, h, w) of frames (B, T, 3, H, W), on their device."""
        known = dict(_joined(clips, [pair for pair in self.pairs if pair in clips[0].flow]))
        known = {pair: (flow.to(frames.device), valid.to(frames.device)) for pair, (flow, valid) in known.items()}
        missing = [pair for pair in self.pairs if pair not in known]
        return self.of_known(known | dict(self._told(frames, clips, missing)), draws)

    def of_known(self, known: Fields, draws: Sequence[ViewDraw]) -> dict[str, Tensor]:
        """Cut flow of whole frames to the views."""
        made: dict[str, Tensor] = {}
        for i, j in self.pairs:
            flow, valid = known[i, j]
            cut = [crop_flow(flow[row], valid[row], self._box(draw), self.size) for row, draw in enumerate(draws)]
            made[f"flow/{i}/{j}"] = torch.stack([flow for flow, _ in cut])
            made[f"valid/{i}/{j}"] = torch.stack([valid for _, valid in cut])
        return made

    def _told(self, frames: Tensor, clips: Sequence[Clip], pairs: Sequence[Pair]) -> Fields:
        """Ask the provider; the flow back as well, where it tells what is hidden."""
        hides = self.settings.occlusion != "none"
        wanted = dict.fromkeys(each for i, j in pairs for each in ([(i, j), (j, i)] if hides else [(i, j)]))
        flow = {}
        for i, j in wanted:
            names = [(f"{clip.name}/{clip.frames[i]}", f"{clip.name}/{clip.frames[j]}") for clip in clips]
            flow[i, j] = self.provider(frames[:, i].contiguous(), frames[:, j].contiguous(), names=names)
        return {
            (i, j): (flow[i, j], valid_pixels(flow[i, j], flow[j, i] if hides else None, self.settings))
            for i, j in pairs
        }

    def _box(self, draw: ViewDraw) -> tuple[int, int, int, int]:
        if self.on in draw.outer:
            return draw.outer[self.on]
        top, left, height, width = draw.groups[self.on].boxes[0].tolist()
        return top, left, height, width


def _joined(clips: Sequence[Clip], pairs: Sequence[Pair]) -> Fields:
    return {
        pair: (
            torch.from_numpy(np.stack([clip.flow[pair].flow for clip in clips])),
            torch.from_numpy(np.stack([clip.flow[pair].valid for clip in clips])),
        )
        for pair in pairs
    }
