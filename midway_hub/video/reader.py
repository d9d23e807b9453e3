"""What every frame reader promises, and the rules that all of them share."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from midway_hub.video.errors import VideoError
from midway_hub.video.index import VideoIndex


@runtime_checkable
class FrameReader(Protocol):
    """Frame-exact random access to one video stream.

    Frames are numbered in the order in which they are shown, as FFmpeg's own decode of the whole file numbers them:
    what an edit list cuts away, and leading pictures that cannot be decoded, are not counted.

    `len(reader)` is the number of frames whose data is in the file. In a file that was cut off these are the frames
    before the cut; asking for a later one is a `VideoError` that says how many can be read. Damage *inside* the data
    only shows when a frame is decoded, and is then a `VideoError` too: never a neighbouring frame.

    A reader belongs to the process and the thread that opened it. Used in a forked child it raises `VideoError`; it
    cannot be pickled. Hand over the path and open the reader in the worker.

    Attributes:
        path: The file.
        name: The reader's name, a key of `READERS`.
        width: Width in pixels as displayed, rotation applied. Pixels are as stored: a non-square pixel shape is not
            stretched.
        height: Height in pixels as displayed, rotation applied.
        fps: Average frames per second: `len(reader) / duration`.
        duration: Seconds from the start of the first frame to the end of the last.
        rotation: Degrees clockwise, 0, 90, 180 or 270, by which the stored pictures were turned for display.
        timestamps: (len,) seconds since the first frame, strictly increasing.
    """

    path: Path
    name: ClassVar[str]
    width: int
    height: int
    fps: float
    duration: float
    rotation: int
    timestamps: np.ndarray

    def __len__(self) -> int: ...

    def get_frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decode exactly the frames asked for, in the order asked for.

        Args:
            indices: Frame numbers in any order; repeats allowed, negatives count from the end.

        Returns:
            (n, height, width, 3) uint8, RGB.

        Raises:
            TypeError: A number is no integer.
            IndexError: A number lies outside the video.
            VideoError: A frame cannot be decoded, or lies behind the point where the file was cut off.
        """
        ...

    def index_at(self, seconds: float) -> int:
        """Number of the frame that is on screen at a time.

        Args:
            seconds: Seconds since the first frame, from 0 up to `duration`.

        Raises:
            ValueError: The time lies outside the video.
        """
        ...

    def iterate(
        self, start: int = 0, stop: int | None = None, step: int = 1, batch: int = 8
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Stream frames in order, decoding each once and holding one batch in memory.

        Args:
            start, stop, step: As in a slice; `step` is at least 1.
            batch: Frames per batch.

        Yields:
            (n,) int64 frame numbers and (n, height, width, 3) uint8 frames, n at most `batch`.
        """
        ...

    def close(self) -> None:
        """Release the file and the decoder; closing twice is fine."""
        ...

    def __enter__(self) -> FrameReader: ...

    def __exit__(self, *exc_info: object) -> None: ...


_open_readers: weakref.WeakSet[BaseReader] = weakref.WeakSet()


@functools.cache
def _never_free_in_forked_children() -> None:
    """Keep inherited readers in forked children: freeing one would wait for ever for threads that are not there."""

    def keep() -> None:
        for reader in _open_readers:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(reader))

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=keep)


class BaseReader(ABC):
    """The part of a `FrameReader` that does not depend on who decodes."""

    name: ClassVar[str]
    package: ClassVar[str]
    reports_damage: ClassVar[bool]

    def __init__(self, index: VideoIndex, *, num_threads: int) -> None:
        self.index = index
        self.num_threads = num_threads
        self.path = index.path
        self.width, self.height, self.rotation = index.width, index.height, index.rotation
        self.timestamps = index.timestamps
        self.duration = index.duration
        self.fps = len(index) / index.duration
        self._pid: int | None = os.getpid()
        _never_free_in_forked_children()
        _open_readers.add(self)

    @staticmethod
    @abstractmethod
    def refusal(index: VideoIndex) -> str | None:
        """Why this reader is known to be wrong for a file, or None."""

    @abstractmethod
    def _read(self, indices: Sequence[int]) -> Iterable[np.ndarray]:
        """Decode frames of strictly increasing numbers, each (height, width, 3) uint8."""

    @abstractmethod
    def _release(self) -> None:
        """Free the decoder."""

    def __len__(self) -> int:
        return len(self.index)

    def get_frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        self._check_usable()
        if not isinstance(indices, Iterable):
            raise TypeError(f"indices must be a sequence of frame numbers, got {indices!r}: write [{indices!r}]")
        wanted = np.array([self._position(i) for i in indices], dtype=np.int64)
        frames = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(wanted.tolist()):
            places.setdefault(number, []).append(place)
        numbers = sorted(places)
        for number, frame in zip(numbers, self._read(numbers) if numbers else (), strict=True):
            frames[places[number]] = frame
        return frames

    def index_at(self, seconds: float) -> int:
        if not (math.isfinite(seconds) and 0 <= seconds <= self.duration):
            raise ValueError(f"{self.path}: there is no frame at {seconds} s, the video lasts {self.duration:.3f} s")
        # Half a microsecond, so that 0.1 + 0.2 finds the frame of 0.3; no frame is that short.
        return int(np.searchsorted(self.timestamps, seconds + 5e-7, side="right")) - 1

    def iterate(
        self, start: int = 0, stop: int | None = None, step: int = 1, batch: int = 8
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if step < 1 or batch < 1:
            raise ValueError(f"step and batch must be at least 1, got step={step} and batch={batch}")
        numbers = np.arange(*slice(start, stop, step).indices(len(self)), dtype=np.int64)
        batches = (numbers[at : at + batch] for at in range(0, len(numbers), batch))
        return ((part, self.get_frames(part)) for part in batches)

    def close(self) -> None:
        if self._pid == os.getpid():
            self._release()
            self._pid = None

    def __enter__(self) -> BaseReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple:
        raise TypeError("a frame reader holds an open decoder and cannot be pickled: hand over its path, and reopen it")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name}: {len(self)} frames of {self.width}x{self.height}>"

    def _check_usable(self) -> None:
        if self._pid is None:
            raise VideoError(f"{self.path}: this reader is closed; open the video again with open_video")
        if self._pid != os.getpid():
            raise VideoError(
                f"{self.path}: this reader was opened in process {self._pid} and is used in its forked child "
                f"{os.getpid()}; decoders do not survive a fork: call open_video inside the worker"
            )

    def _position(self, number: int) -> int:
        """A frame number within the video, from one that may be negative."""
        if isinstance(number, bool | np.bool_):
            raise TypeError("frame numbers must be integers, got a boolean: np.flatnonzero turns a mask into numbers")
        try:
            number = operator.index(number)
        except TypeError:
            raise TypeError(f"frame numbers must be integers, got {number!r}") from None
        length = len(self)
        if -length <= number < length:
            return number % length
        cut = self.index.cut
        if cut and length <= number and (self.index.announced is None or number < self.index.announced):
            raise VideoError(f"{self.path}: frame {number} cannot be read, only the first {length} frames can: {cut}")
        raise IndexError(f"{self.path}: frame {number} is out of range, the video has {length} frames")
