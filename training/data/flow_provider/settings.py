"""The `data.flow` section: who tells how frames move, and where that is kept."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from midway_hub.flow_peers import PEERS, PTLFLOW
from midway_hub.training.settings import Settings

WORLD, DIS, FILES, MIDWAY = "world", "dis", "files", "midway:"
RAFTS = ("raft_large", "raft_small")
PREFIXES = (PTLFLOW, MIDWAY)
PROVIDERS = (WORLD, *PEERS, f"{MIDWAY}NAME_OR_FOLDER", FILES)
FLOWE_PIXELS = 3.54
"""Distance between where flow there and back leads and where it began that the port of FlowE lets pass."""
DDFLOW_SLOPE, DDFLOW_OFFSET = 0.1, 0.5
"""DDFlow's test as PooDLe has it."""


class FlowProviderSettings(Settings):
    """Where a method that is told of flow has it from. Flow is computed on whole, unaugmented frames."""

    provider: str = WORLD
    """`world` (the exact flow of synthetic worlds, which comes with the data; videos know none); `dis` (OpenCV);
    `raft_large`, `raft_small` (torchvision); `ptlflow:NAME` (any model of ptlflow); `midway:NAME_OR_FOLDER` (a
    checkpoint with a flow head); or `files` that were computed before."""

    weights: str | None = None
    """Of RAFT and ptlflow: a file, or `random` for tests; of ptlflow also one of its own names, such as `sintel`. null:
    torchvision's weights, downloaded if need be, and ptlflow's `things`."""

    updates: int | None = Field(default=None, ge=1)
    """Updates of RAFT (null: 12; PooDLe takes 24, FlowE's port 30) or of a checkpoint whose flow head has any (null: as
    it was trained)."""

    path: Path | None = None
    """For `files`: a folder that mirrors the frames' names, with FOLDER/FIRST_SECOND.flo (or .npy, .npz, .png, .pfm,
    .flo5) for every pair: the flow from frame 1 of `clip` to frame 16, counted from 0, is `clip/1_16.flo`, and
    the flow back `clip/16_1.flo`."""

    cache: Path | None = None
    """Folder that keeps what was computed, in 16 bits, for this run and others; several processes may share it. null:
    computed anew every time."""

    cache_gib: float = Field(default=20.0, gt=0)
    """Size that the cache may have; what was not used for longest goes first."""

    occlusion: Literal["none", "forward_backward", "ddflow"] = "none"
    """By what flow there and back tell that a pixel is hidden in the other frame, and so is not valid:
    `forward_backward`, the distance between where they lead and where they began (FlowE); `ddflow`, that distance
    compared with how long they are (DDFlow, PooDLe). Where the data know what is hidden, they say so themselves."""

    occlusion_pixels: float = Field(default=FLOWE_PIXELS, gt=0)
    """Largest distance in pixels that `forward_backward` lets pass."""

    occlusion_slope: float = Field(default=DDFLOW_SLOPE, ge=0)
    """What `ddflow` lets pass of the squared lengths, alpha 1; PooDLe takes 0.1, UFlow 0.01."""

    occlusion_offset: float = Field(default=DDFLOW_OFFSET, ge=0)
    """Squared pixels that `ddflow` always lets pass, alpha 2."""

    @property
    def computes(self) -> bool:
        """Whether flow is computed from frames."""
        return self.provider not in (WORLD, FILES)

    @property
    def cache_bytes(self) -> int:
        """Bytes that the cache may have."""
        return int(self.cache_gib * 2**30)

    @model_validator(mode="after")
    def _is_known(self) -> FlowProviderSettings:
        plain = (WORLD, DIS, *RAFTS, FILES)
        named = any(self.provider.startswith(prefix) and self.provider != prefix for prefix in PREFIXES)
        if self.provider not in plain and not named:
            near = difflib.get_close_matches(self.provider, (*plain, *PREFIXES), n=1)
            advice = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"there is no flow provider {self.provider!r}; {advice}There are: {', '.join(PROVIDERS)}")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> FlowProviderSettings:
        name = f"provider={self.provider}"
        if (self.provider == FILES) != (self.path is not None):
            raise ValueError(f"the provider `files` and a path go together, got {name} and path={self.path}")
        if self.weights is not None and not self.provider.startswith((*RAFTS, PTLFLOW)):
            raise ValueError(f"{name} takes no weights, got weights={self.weights}; set it to null")
        if self.updates is not None and not self.provider.startswith((*RAFTS, MIDWAY)):
            raise ValueError(f"{name} makes no updates, got updates={self.updates}; set it to null")
        if self.cache is not None and not self.computes:
            raise ValueError(f"{name} computes nothing that a cache could keep; set cache to null")
        return self
