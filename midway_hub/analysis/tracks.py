"""Where tracked points are: frame by frame, and collected over a video, as a file too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from midway_hub._durable import whole_file
from midway_hub._regular import refuse_irregular
from midway_hub._tensors import need_finite

FORMAT = "midway-hub tracks 1"


@dataclass(frozen=True)
class TrackedFrame:
    """Where P points are in one frame.

    Attributes:
        number: Number of the frame among those that came, from 0.
        positions: (P, 2) float32 in pixels of the frame, x to the right, then y downwards; the centre of the top left
            pixel is (0, 0). Of a lost point: where it was last.
        confidence: (P,) float32 from 0 to 1, see `track_points`; 0 of a lost point.
        lost: (P,) bool.
    """

    number: int
    positions: np.ndarray
    confidence: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class Tracks:
    """Where P points are in T frames.

    Attributes:
        positions: (T, P, 2) float32 in pixels, x to the right, then y downwards, as in `TrackedFrame`.
        confidence: (T, P) float32 from 0 to 1.
        lost: (T, P) bool.
        frames: (T,) int64, numbers of the frames in the video.
        about: What else is known, such as video, frames per second, model and options; strings, numbers, lists.
    """

    positions: np.ndarray
    confidence: np.ndarray
    lost: np.ndarray
    frames: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.positions.shape
        fits = len(shape) == 3 and shape[2] == 2 and self.frames.shape == shape[:1]
        if not (fits and self.confidence.shape == self.lost.shape == shape[:2]):
            seen = [array.shape for array in (self.positions, self.confidence, self.lost, self.frames)]
            raise ValueError(f"tracks must be (T, P, 2), (T, P), (T, P) and (T,), got {seen}")

    @classmethod
    def collect(cls, steps: Iterable[TrackedFrame], *, every: int = 1, about: Mapping[str, Any] | None = None) -> Self:
        """Gather what `track_points` gives.

        Args:
            steps: Its frames, at least one.
            every: How far apart in the video the frames are that were tracked.
            about: What else is known.

        Raises:
            ValueError: There are no frames.
        """
        kept = list(steps)
        if not kept:
            raise ValueError("there are no tracked frames to collect")
        return cls(
            positions=np.stack([step.positions for step in kept]),
            confidence=np.stack([step.confidence for step in kept]),
            lost=np.stack([step.lost for step in kept]),
            frames=np.array([step.number * every for step in kept], dtype=np.int64),
            about=dict(about or {}),
        )

    def save(self, path: str | Path) -> None:
        """Write them as .npz (arrays by the names above) or .json (a list of points, each a list of frames).

        Raises:
            ValueError: Another ending, or positions or confidences that are not finite.
            OSError: It cannot be written.
        """
        path = checked_tracks_file(path)
        need_finite(self.positions, "a track")
        need_finite(self.confidence, "a track's confidence")
        with whole_file(path) as beside:
            if path.suffix.lower() == ".json":
                beside.write_text(json.dumps(self._document(), allow_nan=False), encoding="utf-8")
            else:
                header = np.array(json.dumps({"format": FORMAT, "about": dict(self.about)}))
                np.savez_compressed(beside, allow_pickle=False, header=header, **self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: It is no such file.
            OSError: It cannot be read.
        """
        path = checked_tracks_file(path)
        refuse_irregular(path)
        try:
            return cls._from_json(path) if path.suffix.lower() == ".json" else cls._from_npz(path)
        except OSError:
            raise
        except Exception as error:  # a broken zip, array or document fails in its library's own way
            raise ValueError(f"{path} holds no tracks that this version can read: {error}") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("positions", "confidence", "lost", "frames")}

    def _document(self) -> dict[str, Any]:
        points = [
            {
                "positions": self.positions[:, point].astype(float).tolist(),
                "confidence": self.confidence[:, point].astype(float).tolist(),
                "lost": self.lost[:, point].tolist(),
            }
            for point in range(self.lost.shape[1])
        ]
        return {"format": FORMAT, "about": dict(self.about), "frames": self.frames.tolist(), "points": points}

    @classmethod
    def _from_json(cls, path: Path) -> Self:
        document = json.loads(path.read_text(encoding="utf-8"))
        _check_format(document)
        columns = {
            name: np.stack([np.array(point[name], dtype=kind) for point in document["points"]], axis=1)
            for name, kind in (("positions", np.float32), ("confidence", np.float32), ("lost", np.bool_))
        }
        return cls(**columns, frames=np.array(document["frames"], dtype=np.int64), about=document["about"])

    @classmethod
    def _from_npz(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as stored:
            header = json.loads(str(stored["header"]))
            _check_format(header)
            arrays = {name: stored[name] for name in ("positions", "confidence", "lost", "frames")}
        return cls(**arrays, about=header["about"])


def checked_tracks_file(path: str | Path) -> Path:
    """Return where tracks are kept, or refuse an ending that is not theirs."""
    if Path(path).suffix.lower() not in (".npz", ".json"):
        raise ValueError(f"tracks are kept as .npz or .json, got {path}")
    return Path(path)


def _check_format(header: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise ValueError(f"its format is {header.get('format')!r}, wanted {FORMAT!r}")
