"""One visit: an item of the source is opened, pairs are taken from it, and their views drawn and made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import Dataset

from midway_hub.training.data.frame_pair import FramePair, PairSource, SampleError
from midway_hub.training.data.payloads import MadeViews, Payload, RawFrames, UnmadeWorlds, WorldSeed
from midway_hub.training.data.quarantine import Rejection, exceeds
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.sampler import Visit
from midway_hub.training.data.substitutes import turns
from midway_hub.training.data.synthetic import WorldSource
from midway_hub.training.data.views import ViewDraw, ViewSettings, apply_views, draw_views


@dataclass(frozen=True)
class Visited:
    """What a visit gave.

    Attributes:
        samples: One per pair, in the form that `join` takes; None if no item could give the pairs.
        pairs: (name, first frame, second frame, seconds between) of each.
        rejections: The items that were tried in vain.
    """

    samples: list[Any] | None
    pairs: list[tuple[str, int, int, float]]
    rejections: list[Rejection]


class VisitDataset(Dataset[Visited]):
    """Maps a `Visit` to its samples; what comes out depends on the visit alone, not on what was read before.

    The visit of an item that cannot be read goes to another item, chosen by the visit's number and the attempt. An item
    known to be unreadable is not opened again: it would fail again.

    Args:
        source: Where pairs come from.
        views: Sizes and ranges of the views.
        groups: Which groups of views to make.
        seed: Seed of the run.
        pairs_per_visit: Pairs taken at a time.
        augment: Whether views are made here (`cpu`), or frames and draws handed on (`device`).
        max_rejected: Share of the items that may be unreadable: a visit does not try more.
    """

    def __init__(
        self,
        source: PairSource,
        *,
        views: ViewSettings,
        groups: Collection[str],
        seed: int,
        pairs_per_visit: int,
        augment: Literal["cpu", "device"],
        max_rejected: float,
    ) -> None:
        self._source, self._views, self._groups = source, views, tuple(groups)
        self._seed, self._count, self._max_rejected = seed, pairs_per_visit, max_rejected
        self._make: Callable[[FramePair, ViewDraw], Any] = apply_views if augment == "cpu" else _hand_on
        self._unreadable: dict[int, SampleError] = {}

    def __getitem__(self, visit: Visit) -> Visited:
        rejections: dict[int, Rejection] = {}
        for attempt, item in enumerate(turns(visit.item, len(self._source), seed=self._seed, number=visit.number)):
            try:
                pairs = self._take(item, visit.drawn_by, attempt)
            except SampleError as error:
                rejections[item] = Rejection(item, error.file, error.reason)
                if exceeds(len(rejections), len(self._source), self._max_rejected):
                    break
                continue
            first = visit.drawn_by * self._count
            samples = [self._sample(pair, first + place) for place, pair in enumerate(pairs)]
            return Visited(samples, [(pair.name, *pair.frames, pair.seconds) for pair in pairs], [*rejections.values()])
        return Visited(None, [], [*rejections.values()])

    def _take(self, item: int, drawn_by: int, attempt: int) -> list[FramePair]:
        if item in self._unreadable:
            raise self._unreadable[item]
        try:
            pairs = self._source.pairs(item, self._count, generator(self._seed, "frames", drawn_by, attempt))
            _check_sizes(pairs)
        except SampleError as error:
            if error.always:
                self._unreadable[item] = error.with_traceback(None)
            raise
        return pairs

    def _sample(self, pair: FramePair, number: int) -> Any:
        height, width = pair.first.shape[:2]
        draw = draw_views(self._views, self._groups, (height, width), generator(self._seed, "views", number))
        return self._make(pair, draw)


class WorldDataset(Dataset[Visited]):
    """Maps a `Visit` to the seeds of synthetic worlds that a device renders: the same worlds that `pairs` gives.

    Args:
        source: Where seeds come from.
        views: Sizes and ranges of the views.
        groups: Which groups of views to make.
        seed: Seed of the run.
        pairs_per_visit: Worlds at a time.
    """

    def __init__(
        self, source: WorldSource, *, views: ViewSettings, groups: Collection[str], seed: int, pairs_per_visit: int
    ) -> None:
        self._source, self._views, self._groups = source, views, tuple(groups)
        self._seed, self._count = seed, pairs_per_visit

    def __getitem__(self, visit: Visit) -> Visited:
        seeds = self._source.seeds(visit.item, self._count, generator(self._seed, "frames", visit.drawn_by, 0))
        first = visit.drawn_by * self._count
        samples = [self._sample(seed, first + place) for place, seed in enumerate(seeds)]
        return Visited(samples, [(f"world {seed}", 0, 1, self._source.settings.seconds) for seed in seeds], [])

    def _sample(self, seed: int, number: int) -> WorldSeed:
        settings = self._source.settings
        draw = draw_views(self._views, self._groups, settings.size, generator(self._seed, "views", number))
        return WorldSeed(settings, seed, draw)


def join(visited: Sequence[Visited]) -> dict[str, Any]:
    """Make a micro-batch of visits.

    Returns:
        `payload` (None if a visit gave nothing), `pairs` and `rejected`.
    """
    samples = [sample for visit in visited for sample in visit.samples or ()]
    complete = all(visit.samples is not None for visit in visited)
    return {
        "payload": _payload(samples) if complete else None,
        "pairs": [pair for visit in visited for pair in visit.pairs],
        "rejected": [rejection for visit in visited for rejection in visit.rejections],
    }


def _payload(samples: Sequence[Any]) -> Payload:
    if isinstance(samples[0], WorldSeed):
        return UnmadeWorlds(list(samples))
    return MadeViews.of(samples) if isinstance(samples[0], dict) else RawFrames.of(samples)


def _hand_on(pair: FramePair, draw: ViewDraw) -> tuple[FramePair, ViewDraw]:
    return pair, draw


def _check_sizes(pairs: Sequence[FramePair]) -> None:
    for pair in pairs:
        height, width = pair.first.shape[:2]
        if min(height, width) < 2:
            raise SampleError(pair.name, f"its frames are {width}x{height} pixels, too small for views", always=True)
