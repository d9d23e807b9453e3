"""What a pack of videos is to hold, and in which form."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from midway_hub.training.settings import Settings

_ONLY_IN = {"jpeg": ("jpeg_quality",), "h264": ("crf", "gop")}
_CHANGE_NOTHING = ("processes", "max_rejected")


class PackSettings(Settings):
    """How videos are packed. All but `processes` and `max_rejected` decide what the pack holds."""

    form: Literal["jpeg", "h264"] = "jpeg"
    """`jpeg`: tar shards of single pictures, fastest to read. `h264`: one MP4 per video whose key frames are `gop`
    frames apart: a fifth to a third of the disk, a third to a half of the speed."""

    short_side: int | None = Field(default=360, ge=16)
    """Frames are made smaller so that their short side has this many pixels, never larger; null keeps their size."""

    jpeg_quality: int = Field(default=90, ge=1, le=100)
    """Quality of the JPEGs; below 90 their artefacts become something to learn."""

    crf: int = Field(default=20, ge=0, le=51)
    """Constant rate factor of x264; lower is better and larger, 6 less is twice the size."""

    gop: int = Field(default=5, ge=1, le=250)
    """Frames from one key frame to the next in the form `h264`; a frame costs on average half as many to reach."""

    every: int = Field(default=1, ge=1)
    """Keep every n-th frame. Gaps between frames go by the original numbers, so some then cannot be drawn."""

    fps: float | None = Field(default=None, gt=0)
    """Keep at most this many frames per second, instead of every n-th."""

    max_frames: int | None = Field(default=None, ge=2)
    """Frame budget of one video: a longer one is packed in runs of neighbouring frames, spread evenly over it."""

    run: int = Field(default=90, ge=2)
    """Kept frames of one such run, at least. Pairs lie within runs, so it has to be longer than the longest gap."""

    shard_bytes: int = Field(default=1 << 30, ge=1)
    """Videos are put together in shards of about this size; a shard is what one process makes at a time."""

    reader: str = "auto"
    """Video reader of the originals."""

    processes: int | None = Field(default=None, ge=1)
    """Packing processes; null takes one per usable CPU core."""

    max_rejected: float = Field(default=0.05, ge=0, le=1)
    """Share of the videos that may be unreadable before packing stops."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fps is not None and self.every != 1:
            raise ValueError(f"every={self.every} and fps={self.fps:g} both thin frames out; set one of them")
        if self.max_frames is not None and self.max_frames < self.run:
            raise ValueError(
                f"max_frames={self.max_frames} is less than one run of {self.run} neighbouring frames: raise it, or "
                f"lower run, which has to stay longer than the longest gap between the frames of a pair"
            )
        return self

    def content(self) -> dict[str, Any]:
        """Return what decides the content of a pack, as plain values."""
        other = next(names for form, names in _ONLY_IN.items() if form != self.form)
        return self.model_dump(mode="json", exclude={*_CHANGE_NOTHING, *other})
