"""One visit: an item of the source is opened, clips are taken from it, and their views drawn and made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import Dataset

from midway_hub.training.data.clip import Clip, ClipSource, SampleError
from midway_hub.training.data.flow_provider import FlowAsked
from midway_hub.training.data.needs import Needs
from midway_hub.training.data.payloads import MadeViews, Payload, RawFrames, UnmadeWorlds, WorldSeed
from midway_hub.training.data.quarantine import Rejection, exceeds
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.sampler import Visit
from midway_hub.training.data.substitutes import turns
from midway_hub.training.data.synthetic import WorldSource
from midway_hub.training.data.views import apply_views, draw_views


@dataclass(frozen=True)
class Visited:
    """What a visit gave.

    Attributes:
        samples: One per clip, in the form that `join` takes; None if no item could give the clips.
        clips: (name, *frames, seconds from the first to the last) of each.
        rejections: The items that were tried in vain.
    """

    samples: list[Any] | None
    clips: list[tuple[Any, ...]]
    rejections: list[Rejection]


class VisitDataset(Dataset[Visited]):
    """Maps a `Visit` to its samples; what comes out depends on the visit alone, not on what was read before.

    The visit of an item that cannot be read goes to another item, chosen by the visit's number and the attempt. An item
    known to be unreadable is not opened again: it would fail again.

    Args:
        source: Where clips come from.
        needs: What the method asks for.
        seed: Seed of the run.
        clips_per_visit: Clips taken at a time.
        augment: Whether views are made here (`cpu`), or frames and draws handed on (`device`).
        max_rejected: Share of the items that may be unreadable: a visit does not try more.
        flow: The flow that the method asks for, made here where views are.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        needs: Needs,
        seed: int,
        clips_per_visit: int,
        augment: Literal["cpu", "device"],
        max_rejected: float,
        flow: FlowAsked | None = None,
    ) -> None:
        self._source, self._needs, self._flow = source, needs, flow
        self._seed, self._count, self._max_rejected = seed, clips_per_visit, max_rejected
        self._makes = augment == "cpu"
        self._unreadable: dict[int, SampleError] = {}

    def __getitem__(self, visit: Visit) -> Visited:
        rejections: dict[int, Rejection] = {}
        for attempt, item in enumerate(turns(visit.item, len(self._source), seed=self._seed, number=visit.number)):
            try:
                clips = self._take(item, visit.drawn_by, attempt)
                first = visit.drawn_by * self._count
                samples = [self._sample(clip, first + place) for place, clip in enumerate(clips)]
            except SampleError as error:
                rejections[item] = Rejection(item, error.file, error.reason)
                if exceeds(len(rejections), len(self._source), self._max_rejected):
                    break
                continue
            return Visited(samples, [(clip.name, *clip.frames, clip.seconds) for clip in clips], [*rejections.values()])
        return Visited(None, [], [*rejections.values()])

    def _take(self, item: int, drawn_by: int, attempt: int) -> list[Clip]:
        if item in self._unreadable:
            raise self._unreadable[item]
        try:
            clips = self._source.clips(item, self._count, generator(self._seed, "frames", drawn_by, attempt))
            _check_sizes(clips)
        except SampleError as error:
            if error.always:
                self._unreadable[item] = error.with_traceback(None)
            raise
        return clips

    def _sample(self, clip: Clip, number: int) -> Any:
        height, width = clip.first.shape[:2]
        draw = draw_views(self._needs, (height, width), generator(self._seed, "views", number))
        if not self._makes:
            return self._flow.with_flow(clip) if self._flow is not None and self._flow.comes_with_data else clip, draw
        return apply_views(clip, draw) | (self._flow.of_clip(clip, draw) if self._flow is not None else {})


class WorldDataset(Dataset[Visited]):
    """Maps a `Visit` to the seeds of synthetic worlds that a device renders: the same worlds that `clips` gives.

    Args:
        source: Where seeds come from.
        needs: What the method asks for.
        seed: Seed of the run.
        clips_per_visit: Worlds at a time.
    """

    def __init__(self, source: WorldSource, *, needs: Needs, seed: int, clips_per_visit: int) -> None:
        self._source, self._needs = source, needs
        self._seed, self._count = seed, clips_per_visit

    def __getitem__(self, visit: Visit) -> Visited:
        seeds = self._source.seeds(visit.item, self._count, generator(self._seed, "frames", visit.drawn_by, 0))
        first = visit.drawn_by * self._count
        samples = [self._sample(seed, first + place) for place, seed in enumerate(seeds)]
        return Visited(
            samples, [(f"world {seed}", *range(self._needs.frames.count), self._source.seconds) for seed in seeds], []
        )

    def _sample(self, seed: int, number: int) -> WorldSeed:
        settings = self._source.settings
        draw = draw_views(self._needs, settings.size, generator(self._seed, "views", number))
        return WorldSeed(settings, seed, draw, self._needs.frames.count)


def join(visited: Sequence[Visited]) -> dict[str, Any]:
    """Make a micro-batch of visits.

    Returns:
        `payload` (None if a visit gave nothing), `clips` and `rejected`.
    """
    samples = [sample for visit in visited for sample in visit.samples or ()]
    complete = all(visit.samples is not None for visit in visited)
    return {
        "payload": _payload(samples) if complete else None,
        "clips": [clip for visit in visited for clip in visit.clips],
        "rejected": [rejection for visit in visited for rejection in visit.rejections],
    }


def _payload(samples: Sequence[Any]) -> Payload:
    if isinstance(samples[0], WorldSeed):
        return UnmadeWorlds(list(samples))
    return MadeViews.of(samples) if isinstance(samples[0], dict) else RawFrames.of(samples)


def _check_sizes(clips: Sequence[Clip]) -> None:
    for clip in clips:
        height, width = clip.first.shape[:2]
        if min(height, width) < 2:
            raise SampleError(clip.name, f"its frames are {width}x{height} pixels, too small for views", always=True)
