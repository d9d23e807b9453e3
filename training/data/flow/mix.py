"""Several flow data sets as one, some of them counted several times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from midway_hub.training.data.flow.datasets import FLOW_DATASETS, build_flow_dataset, check_flow_name
from midway_hub.training.data.flow.sample import FlowDataset, FlowSample
from midway_hub.training.settings import Settings


class FlowPart(Settings):
    """A data set of a mixture."""

    name: str
    """One of `FLOW_DATASETS`, such as `sintel/subtrain/clean`."""

    repeat: int = Field(default=1, ge=1)
    """How often each of its pairs counts."""

    root: Path | None = None
    """Its folder; default: that of `roots`."""

    options: dict[str, Any] = Field(default_factory=dict)
    """What its reader takes, such as `cameras`."""

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_flow_name(value)


def _parts(repeats: Mapping[str, int]) -> tuple[FlowPart, ...]:
    return tuple(FlowPart(name=name, repeat=repeat) for name, repeat in repeats.items())


PAPER_MIX = _parts(
    {
        "sintel/subtrain/clean": 40,
        "sintel/subtrain/final": 40,
        "things/train/clean": 4,
        "things/train/final": 4,
        "chairs/train": 4,
        "tartanair/train": 1,
    }
)
"""The mixture of the paper's main tables (CroCo v2's): 793,052 entries."""

ABLATION_MIX = _parts({"chairs/train": 1, "things/train/clean": 1, "things/train/final": 1})
"""The smaller mixture of the paper's ablations: FlyingChairs and FlyingThings3D; their weights are not published."""


class FlowMixSettings(Settings):
    """A mixture of flow data sets."""

    parts: tuple[FlowPart, ...] = PAPER_MIX
    """The data sets and how often each counts."""

    roots: dict[str, Path] = Field(default_factory=dict)
    """Folder of each data set by the first part of its name: chairs, things, sintel, tartanair, ..."""

    @field_validator("parts")
    @classmethod
    def _some(cls, value: tuple[FlowPart, ...]) -> tuple[FlowPart, ...]:
        if not value:
            raise ValueError("a mixture has at least one data set; name one, such as chairs/train")
        return value

    @field_validator("roots")
    @classmethod
    def _known(cls, value: dict[str, Path]) -> dict[str, Path]:
        known = list(dict.fromkeys(map(_family, FLOW_DATASETS)))
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"roots has {', '.join(unknown)}; there are {', '.join(known)}")
        return value

    def root_of(self, part: FlowPart) -> Path:
        """Return the folder of a part.

        Raises:
            ValueError: None is given.
        """
        root = part.root or self.roots.get(_family(part.name))
        if root is None:
            raise ValueError(f"{part.name}: no folder is given; set roots.{_family(part.name)} to where it is")
        return root


class PartCount(NamedTuple):
    """What a data set contributes to a mixture: `pairs` of it, each `repeat` times."""

    name: str
    pairs: int
    repeat: int

    @property
    def entries(self) -> int:
        """Number of entries of the mixture."""
        return self.pairs * self.repeat


class MixedFlow:
    """A `FlowDataset` of several: all of the first, as often as it counts, then all of the second, and so on.

    Args:
        parts: The data sets and how often each counts.
        name: What it is called.

    Raises:
        ValueError: No part, an empty one, or one that counts less than once.
    """

    def __init__(self, parts: Sequence[tuple[FlowDataset, int]], *, name: str = "mixture") -> None:
        self.name, self.parts = name, tuple(parts)
        self.counts = [PartCount(dataset.name, len(dataset), repeat) for dataset, repeat in self.parts]
        """What each part contributes."""
        for part in self.counts or [PartCount("a mixture without parts", 0, 1)]:
            if part.entries < 1:
                raise ValueError(f"{part.name} has {part.pairs} pairs, {part.repeat} times each; wanted at least one")
        self._ends = np.cumsum([part.entries for part in self.counts])

    @property
    def sparse(self) -> bool:
        """Whether some part has flow at scattered pixels only; each sample says so itself."""
        return any(dataset.sparse for dataset, _ in self.parts)

    def __len__(self) -> int:
        """Returns: the entries of all parts."""
        return int(self._ends[-1])

    def locate(self, index: int) -> tuple[FlowDataset, int]:
        """Return the data set an entry is of, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are entries 0 to {len(self) - 1}, got {index}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        dataset, _ = self.parts[part]
        before = int(self._ends[part - 1]) if part else 0
        return dataset, (index - before) % len(dataset)

    def __getitem__(self, index: int) -> FlowSample:
        """Read an entry; see `FlowDataset`."""
        dataset, number = self.locate(index)
        return dataset[number]

    def missing(self) -> list[str]:
        """Return the files that are not there, of all parts."""
        return list(dict.fromkeys(file for dataset, _ in self.parts for file in dataset.missing()))

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies each part, and how often it counts."""
        parts = [{**dataset.fingerprint(), "repeat": repeat} for dataset, repeat in self.parts]
        return {"name": self.name, "pairs": len(self), "parts": parts}


def build_flow_mix(settings: FlowMixSettings) -> MixedFlow:
    """List the pairs of all data sets of a mixture for training: without their occlusions.

    Raises:
        ValueError: A part without folder, or with an unknown option.
        FileNotFoundError: A folder that is not there or holds no pairs.
    """
    return MixedFlow(
        [
            (
                build_flow_dataset(part.name, settings.root_of(part), **{"occlusions": False, **part.options}),
                part.repeat,
            )
            for part in settings.parts
        ]
    )


def _family(name: str) -> str:
    return name.split("/")[0]
