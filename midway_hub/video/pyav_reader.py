"""Frame-exact reading with PyAV: seek to the key frame before, decode forward, and look at every picture on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from midway_hub.video.errors import VideoError
from midway_hub.video.index import NO_TIME, VideoIndex
from midway_hub.video.pyav_decoder import Decoder, LostError, RGBConverter
from midway_hub.video.reader import BaseReader

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_MOST_DELAYED = 32
"""Packets after which the picture of one is surely out (no codec reorders by more than 16)."""


class PyAVReader(BaseReader):
    """The reader for every file: it handles edit lists, open GOPs and rotation, and reports damaged pictures."""

    name = "pyav"
    package = "av"
    reports_damage = True

    def __init__(self, index: VideoIndex, *, num_threads: int) -> None:
        super().__init__(index, num_threads=num_threads)
        self._decoder = Decoder(index, num_threads)
        self._careful = Decoder(index, 1)
        self._run: _Run | None = None
        self._health: dict[int, _Health] = {}
        self._to_rgb = RGBConverter(index)

    @staticmethod
    def refusal(index: VideoIndex) -> str | None:
        return None

    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return (self._to_rgb(self._frame(number)) for number in indices)

    def _release(self) -> None:
        self._run = None
        self._decoder.close()
        self._careful.close()

    def _frame(self, number: int) -> VideoFrame:
        entry: int | None = int(self.index.entries[number])
        while entry is not None:
            health = self._health.get(entry)
            if health and health.damaged is not None and self.index.ordinals[number] >= health.damaged:
                raise self._unreadable(number, health.reason)
            if health and self.index.pts[number] < health.start:
                entry = self.index.entry_before(entry)
                continue
            try:
                return self._run_to(number, entry, health)
            except LostError:
                self._run = None
            except DamageError as damage:
                self._run = None
                if health or self.index.packets is None:
                    raise self._unreadable(number, str(damage)) from None
                self._health[entry] = self._inspect(entry)
        raise self._unreadable(number, "the decoder cannot start at any key frame before it")

    def _run_to(self, number: int, entry: int, health: _Health | None) -> VideoFrame:
        if health is None:
            return self._run_from(entry, number, self._decoder)
        if health.damaged is not None:
            return self._run_from(entry, number, self._careful, health.damaged)
        try:
            return self._run_from(entry, number, self._careful)
        except DamageError:  # perhaps behind the frame, where the decoder looks ahead
            self._run = None
            return self._run_from(entry, number, self._careful, max(health.end, int(self.index.ordinals[number]) + 1))

    def _run_from(self, entry: int, number: int, decoder: Decoder, stop: int | None = None) -> VideoFrame:
        if self._run is None or self._run.stop != stop or not self._run.can_reach(number, entry):
            self._run = _Run(decoder, self.index, entry, stop)
        return self._run.frame(number)

    def _inspect(self, entry: int) -> _Health:
        while True:
            try:
                return _inspect(self._careful, self.index, entry)
            except LostError:
                continue

    def _unreadable(self, number: int, reason: str) -> VideoError:
        return VideoError(f"{self.path}: frame {number} cannot be decoded: {reason}")


class DamageError(Exception):
    """Something is wrong with the pictures on the way to a frame."""


class _Run:
    """Decoding forward from an entry point, picture by picture, none missing and none damaged.

    A picture is handed out only when everything decoded before it has come out sound: the decoder shows a damaged
    picture in display order, so after the pictures that refer to it.
    """

    def __init__(self, decoder: Decoder, index: VideoIndex, entry: int, stop: int | None = None) -> None:
        self._index = index
        self.stop, self._entry = stop, entry
        self._first, self._expected = NO_TIME, index.decoded_pts
        if index.packets is not None:
            self._first = int(index.packets.pts[entry])
            if stop is not None:
                self._expected = self._expected[np.isin(self._expected, index.packets.pts[:stop])]
        self._source = decoder.decode(entry, stop)
        self._kept: deque[tuple[int, VideoFrame]] = deque()
        self._fed = entry
        self._reached = NO_TIME
        self._due: int | None = None
        self._ended = False

    def can_reach(self, number: int, entry: int) -> bool:
        """Whether going on leads to a frame, and sooner than starting at its own entry point."""
        return bool(self._reached <= self._index.pts[number] and self._entry <= entry <= self._fed)

    def frame(self, number: int) -> VideoFrame:
        pts, settled = int(self._index.pts[number]), self._index.settled_at(number)
        all_before = int(np.searchsorted(self._expected, settled, side="right"))
        while not self._ended and (self._due or 0) < all_before:
            self._step()
        self._reached = pts
        while self._kept and self._kept[0][0] < pts:
            self._kept.popleft()
        if (self._due or 0) < all_before or not self._kept or self._kept[0][0] != pts:
            raise DamageError("the decoder puts out no picture for it")
        return self._kept[0][1]

    def _step(self) -> None:
        step = next(self._source, None)
        if step is None:
            self._ended = True
            return
        self._fed = max(self._fed, step.ordinal)
        if step.error and not step.leading:
            raise DamageError(step.error)
        for pts, frame in step.pictures:
            place = int(np.searchsorted(self._expected, pts))
            if pts < self._first or place == len(self._expected) or self._expected[place] != pts:
                continue  # a leading picture of the entry point, or one behind the cut
            if self._due not in (None, place):
                raise DamageError("a picture before it is missing")
            if frame.is_corrupt:
                raise DamageError("its data, or that of a picture it refers to, is damaged")
            self._due = place + 1
            self._kept.append((pts, frame))


@dataclass(frozen=True)
class _Health:
    """Which pictures behind an entry point are sound.

    Attributes:
        start: Tick of the first picture that comes out, behind the last if none does: where a key frame is no full
            picture (intra refresh), a decoder needs some more to recover.
        end: Place in decode order behind the last packet that belongs to the entry point.
        damaged: Place of the first packet that is noticed to be damaged, None if all are sound.
        reason: What is wrong with it.
    """

    start: int
    end: int
    damaged: int | None
    reason: str


def _inspect(decoder: Decoder, index: VideoIndex, entry: int) -> _Health:
    """Decode all that belongs to an entry point, packet by packet."""
    assert index.packets is not None
    end = int(index.ordinals[index.entries == entry].max(initial=entry)) + 1
    pts = index.packets.pts[entry:end]
    ordinals = {int(pts[i]): entry + int(i) for i in np.flatnonzero(np.isin(pts, index.decoded_pts))}
    bad: dict[int, str] = {}
    seen: set[int] = set()
    # Feeding goes on behind the end until all pictures are out: those that a flush forces out may not have recovered.
    for step in decoder.decode(entry, end + _MOST_DELAYED):
        if step.error and not step.leading and step.ordinal < end:
            bad[step.ordinal] = step.error
        for tick, frame in step.pictures:
            seen.add(tick)
            if frame.is_corrupt and tick in ordinals:
                bad[ordinals[tick]] = "the data of a picture is wrong"
        if seen and max(seen) > pts.max():
            break
    start = min((tick for tick in seen if tick >= pts[0]), default=int(pts.max()) + 1)
    for tick, ordinal in ordinals.items():
        if tick >= start and tick not in seen:
            bad.setdefault(ordinal, "no picture comes out of it")
    first = min(bad, default=None)
    return _Health(start, end, first, "" if first is None else f"damaged from packet {first} on: {bad[first]}")
