"""What can be chosen about tracking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["dynamics", "similarity"]
WhenLost = Literal["search", "stop", "ignore"]


@dataclass(frozen=True)
class TrackOptions:
    """How points are tracked.

    Attributes:
        method: `"dynamics"`, the paper's rule: of the `top` target patches of highest heatmap score, the one whose
            feature is most similar. `"similarity"`: of all target patches, the one whose feature is most similar.
        level: Encoder block whose prediction the heatmaps ask; default: the finest.
        top: How many patches similarity chooses from.
        draws: Random directions per heatmap.
        seed: Seed of the directions; each pair of frames has its own.
        refine: Whether points move by parts of a patch, read off the similarities around both ends; else by whole
            patches, as in the paper.
        lost_below: A step of lower confidence is not taken: the point is lost, and stays where it was last seen.
        when_lost: `"search"`: from the next frame on a lost point is searched for in the whole frame, and followed
            again once found. `"stop"`: it stays lost. `"ignore"`: every step is taken, no point is ever lost.
        found_above: Confidence that a search has to reach.
        chunk: Directions pushed through the predictor at once; bounds memory. Default: what is fast.
    """

    method: Method = "dynamics"
    level: int | None = None
    top: int = 5
    draws: int = 8
    seed: int = 0
    refine: bool = False
    lost_below: float = 0.3
    when_lost: WhenLost = "search"
    found_above: float = 0.6
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("dynamics", "similarity"):
            raise ValueError(f"method must be 'dynamics' or 'similarity', got {self.method!r}")
        if self.when_lost not in ("search", "stop", "ignore"):
            raise ValueError(f"when_lost must be 'search', 'stop' or 'ignore', got {self.when_lost!r}")
        for name in ("top", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lost_below", "found_above"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
