"""Teachers of flow by name, opened when first asked; estimators are those of the package."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midway_hub.flow_io import read_flow
from midway_hub.flow_peers import FlowPeer, make_peer
from midway_hub.models.occlusion import OFFSET, SLOPE, occluded
from midway_hub.training.data.clip import Clip, KnownFlow, SampleError
from midway_hub.training.data.flow_teacher.cache import FlowCache
from midway_hub.training.data.flow_teacher.settings import FILES, MIDWAY, SOURCE, FlowTeacherSettings

DDFLOW_SLOPE = 0.1
SUFFIXES = (".flo", ".npy", ".npz", ".png", ".pfm")


class FlowTeacher:
    """Tells the flow between frames of a clip.

    Args:
        settings: Which teacher, and where its answers are kept.
        device: Where networks run.

    Raises:
        ImportError: A package that the teacher needs is missing.
        ValueError: There is no such model, it has no weights here, or the cache is another teacher's.
    """

    def __init__(self, settings: FlowTeacherSettings, *, device: torch.device | str = "cpu") -> None:
        self.settings, self.device = settings, device

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "device": self.device}  # networks are opened where they are used

    @cached_property
    def estimator(self) -> FlowPeer:
        """The estimator; opened now."""
        name = self.settings.teacher
        if not name.startswith(MIDWAY):
            return make_peer(name, device=self.device)
        from midway_hub import MidwayNetwork
        from midway_hub.training.evaluation.flow.networks import NetworkFlow

        network = MidwayNetwork.from_pretrained(name.removeprefix(MIDWAY)).to(self.device)
        if not network.has_flow_head:
            raise ValueError(f"data.flow.teacher={name}: this checkpoint has no flow head; take one that has")
        return NetworkFlow(network, name=name)

    @cached_property
    def cache(self) -> FlowCache | None:
        """Where answers are kept; opened now."""
        folder, limit = self.settings.cache, int(self.settings.cache_gib * 2**30)
        return None if folder is None else FlowCache(folder, self._identity(), limit=limit)

    def check(self) -> None:
        """Open estimator and cache, so that what is missing is said before a run starts."""
        if self.settings.teacher not in (SOURCE, FILES):
            self.estimator  # noqa: B018
            self.cache  # noqa: B018

    def flow(self, clip: Clip, frame: int, other: int) -> KnownFlow:
        """Return the flow from one frame of a clip to another.

        Raises:
            SampleError: Nobody knows it.
        """
        if self.settings.teacher == SOURCE:
            if (frame, other) not in clip.flow:
                raise SampleError(clip.name, "the source knows no flow; set data.flow.teacher", always=True)
            return clip.flow[frame, other]
        if self.settings.teacher == FILES:
            return self._read(clip, frame, other)
        flow = self._estimate(clip.pictures[frame], clip.pictures[other])
        valid = np.isfinite(flow).all(axis=0)
        if self.settings.occlusion != "none":
            valid &= ~self._hidden(flow, self._estimate(clip.pictures[other], clip.pictures[frame]))
        return KnownFlow(flow, valid)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the flow depends on, JSON-able."""
        return {"teacher": self.settings.teacher, "occlusion": self.settings.occlusion}

    def _identity(self) -> dict[str, Any]:
        return {key: value for key, value in self.estimator.settings.items() if key != "device"}

    def _estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if self.cache is None:
            return self.estimator(first, second)
        return self.cache.get(first, second, lambda: self.estimator(first, second))

    def _hidden(self, flow: np.ndarray, backward: np.ndarray) -> np.ndarray:
        slope = SLOPE if self.settings.occlusion == "forward_backward" else DDFLOW_SLOPE
        both = (torch.from_numpy(each)[None] for each in (flow, backward))
        return occluded(*both, slope=slope, offset=OFFSET)[0].numpy()

    def _read(self, clip: Clip, frame: int, other: int) -> KnownFlow:
        assert self.settings.path is not None
        stem = self.settings.path / clip.name / f"{clip.frames[frame]}_{clip.frames[other]}"
        found = [path for suffix in SUFFIXES if (path := Path(f"{stem}{suffix}")).is_file()]
        if not found:
            raise SampleError(clip.name, f"there is no flow {stem}{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])})")
        try:
            field = read_flow(found[0])
        except (OSError, ValueError) as error:
            raise SampleError(clip.name, f"{found[0]} is no flow that can be read: {error}") from error
        size = clip.pictures[frame].shape[:2]
        if field.valid.shape != size:
            raise SampleError(clip.name, f"{found[0]} is of {field.valid.shape} pixels, its frame of {size}")
        return KnownFlow(np.ascontiguousarray(field.flow.transpose(2, 0, 1), dtype=np.float32), field.valid)
