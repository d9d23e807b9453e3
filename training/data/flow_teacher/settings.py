"""The `data.flow` section: who tells how frames move, and where that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from midway_hub.flow_peers import PEERS, is_peer
from midway_hub.training.settings import Settings

SOURCE, FILES, MIDWAY = "source", "files", "midway:"
TEACHERS = (SOURCE, *PEERS, f"{MIDWAY}NAME", FILES)


class FlowTeacherSettings(Settings):
    """Where a method that is told of flow has it from. Flow is computed on whole, unaugmented frames."""

    teacher: str = SOURCE
    """`source`: what the data know themselves, as synthetic worlds do; `dis` (OpenCV), `raft_large`, `raft_small`
    (torchvision; `raft_large=FILE` with weights of one's own), `ptlflow:NAME` (any model of ptlflow), `midway:NAME`
    (a checkpoint with a flow head: registry name, Hub repo or folder), or `files`."""

    path: Path | None = None
    """For `files`: a folder that holds, for every video, FOLDER/VIDEO/FROM_TO.flo (or .npy, .npz, .png, .pfm), by the
    numbers of its frames counted from 0."""

    occlusion: Literal["none", "forward_backward", "ddflow"] = "none"
    """Whether pixels that a teacher's flows there and back tell to be hidden are not valid: by Sundaram's rule (0.01,
    0.5) or DDFlow's (0.1, 0.5). What the source knows is exact and stays; methods may mask of their own."""

    cache: Path | None = None
    """Folder that keeps what the teacher computed, in 16 bits, for this run and others; several processes may share
    it. null: computed anew every time."""

    cache_gib: float = Field(default=20.0, gt=0)
    """Size that the cache may have; what was not used for longest goes first."""

    @model_validator(mode="after")
    def _known(self) -> FlowTeacherSettings:
        if self.teacher not in (SOURCE, FILES) and not self.teacher.startswith(MIDWAY) and not is_peer(self.teacher):
            raise ValueError(f"there is no flow teacher {self.teacher!r}; there are: {', '.join(TEACHERS)}")
        if (self.teacher == FILES) != (self.path is not None):
            raise ValueError(
                f"the teacher `files` and a path go together, got teacher={self.teacher} and path={self.path}"
            )
        if self.cache is not None and self.teacher in (SOURCE, FILES):
            raise ValueError(f"teacher={self.teacher} computes nothing that a cache could keep; set cache to null")
        return self
