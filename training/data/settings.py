"""The `data` section of a run's configuration: where frame pairs come from and how they are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from midway_hub.training.data.flow_provider.settings import FlowProviderSettings
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.settings import Settings

TimeUnit = Literal["s", "ms", "us", "ns"]


class GapSettings(Settings):
    """How far apart the two frames of a pair are: exactly one of the two ranges is given."""

    frames: tuple[int, int] | None = None
    """Fewest and most frames from the first to the second, both drawn; uniform."""

    seconds: tuple[float, float] | None = None
    """Least and most seconds from the first to the second; uniform over the frames that lie there."""

    @model_validator(mode="after")
    def _one_range(self) -> GapSettings:
        if (self.frames is None) == (self.seconds is None):
            raise ValueError(
                f"give exactly one of gap.frames and gap.seconds, got frames={self.frames} and seconds={self.seconds}; "
                f"set the other one to null"
            )
        low, high = self.range
        if not (0 < low <= high and math.isfinite(high)):
            raise ValueError(f"a gap is [least, most] with 0 < least <= most, got [{low:g}, {high:g}] {self.unit}")
        return self

    @property
    def range(self) -> tuple[float, float]:
        """The least and the most, in `unit`."""
        chosen = self.frames or self.seconds
        assert chosen is not None
        return chosen

    @property
    def unit(self) -> Literal["frames", "seconds"]:
        """What the range counts."""
        return "frames" if self.frames else "seconds"

    def __str__(self) -> str:
        low, high = self.range
        return f"{low:g} {self.unit}" if low == high else f"{low:g}-{high:g} {self.unit}"


class DataSettings(Settings):
    """Where frame pairs come from, how many are taken at a time, and who reads them."""

    source: Literal["synthetic", "videos", "frames", "pack"] = "synthetic"
    """`synthetic` worlds made on the fly, `videos`, `frames` decoded to image files, or a `pack` of videos."""

    path: Path | None = None
    """Folder, `.txt` list or one video; for `frames` a folder of images or one folder per video; a pack's folder."""

    pattern: str = "*"
    """Which files below the folder to take, e.g. `*.mov`: matched against the end of their path."""

    gap: GapSettings = GapSettings(frames=(15, 30))
    """Distance of the frames of a pair or window, each from the next."""

    frame_rate: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Frames per second that `frames` were decoded at, where their names tell no times."""

    frame_times: TimeUnit | None = None
    """Unit of the times that `frames` are named by, as cameras write them: `s`, `ms`, `us` or `ns`; else null."""

    pairs_per_visit: int = Field(default=5, ge=1)
    """Pairs (clips, for methods of other lengths) taken each time a video is opened."""

    every_pair: bool = False
    """For `frames`: an item is one first frame, so that a pass takes every frame once as the first."""

    visits_per_step: int = Field(default=40, ge=1)
    """Videos opened for one optimizer step, over all processes and accumulated micro-batches."""

    epoch_pairs: int | None = Field(default=None, ge=1)
    """Pairs that count as one epoch; by default as many as the source has items (10,000 for `synthetic`)."""

    workers: int = Field(default=2, ge=0)
    """Reading processes of each training process; 0 reads in the training process itself."""

    prefetch: int = Field(default=2, ge=1)
    """Micro-batches that each reading process prepares ahead."""

    start_method: Literal["fork", "spawn", "forkserver"] | None = None
    """How reading processes start; by default the platform's own way."""

    reader: Literal["auto", "pyav", "torchcodec", "decord"] = "auto"
    """Video reader; `auto` takes the fastest that is exact for the file."""

    augment: Literal["cpu", "device"] = "cpu"
    """Whether the reading processes make the views, or the training device does, a micro-batch at a time."""

    max_rejected: float = Field(default=0.05, ge=0, le=1)
    """Share of the source's items that may turn out unreadable before the run stops."""

    world: WorldSettings = WorldSettings()
    """The synthetic world."""

    flow: FlowProviderSettings = FlowProviderSettings()
    """Who tells how frames move, for methods that need to be told."""

    @field_validator("pattern")
    @classmethod
    def _pattern_matches_something(cls, value: str) -> str:
        if not value:
            raise ValueError("pattern is empty and would match no file; '*' takes all")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> DataSettings:
        if self.source == "synthetic" and self.path is not None:
            raise ValueError(f"data.path is {self.path}, but data.source=synthetic reads no files; set data.source too")
        if self.source != "synthetic" and self.path is None:
            raise ValueError(f"data.source={self.source} needs data.path: where the {self.source} lie")
        if self.frame_times is not None and self.source != "frames":
            raise ValueError(
                f"data.frame_times reads times out of names of decoded frames and needs data.source=frames, got "
                f"{self.source}"
            )
        if self.every_pair and self.source != "frames":
            raise ValueError(
                f"data.every_pair takes decoded frames one by one and needs data.source=frames, got {self.source}"
            )
        if self.every_pair and self.pairs_per_visit != 1:
            raise ValueError(
                f"data.every_pair takes one pair per visit, got data.pairs_per_visit={self.pairs_per_visit}; make it 1"
            )
        return self
