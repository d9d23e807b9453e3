"""The `data` section of a flow finetuning run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from midway_hub.drawing import strip
from midway_hub.flow_io import flow_picture
from midway_hub.training.configuration import ConfigError
from midway_hub.training.data.flow import (
    FlowAugment,
    FlowDataset,
    FlowMixSettings,
    FlowPart,
    WorldFlow,
    augment_flow,
    build_flow_dataset,
    build_flow_mix,
    check_flow_datasets,
)
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.supervised import Example, Examples
from midway_hub.training.data.synthetic import held_out_seeds
from midway_hub.training.tasks.data import PICTURES, TaskData, channels_first


class FlowData(TaskData):
    """Pairs of frames with ground truth."""

    learned: ClassVar[Literal["flow", "segmentation"]] = "flow"

    parts: tuple[FlowPart, ...] = ()
    """For `files`: the data sets, and how often each of their pairs counts."""

    roots: dict[str, Path] = Field(default_factory=dict)
    """Folder of each data set by the first part of its name: chairs, things, sintel, tartanair, ..."""

    crop: tuple[int, int] = (320, 384)
    """Height and width of a training crop in pixels; worlds are made at their own size."""

    augment: FlowAugment = FlowAugment()
    """Resizing, flips and colours, for `files`."""

    max_missing: float = Field(0.0, ge=0)
    """Missing files per pair of a data set that are put up with."""

    @model_validator(mode="after")
    def _some_parts(self) -> FlowData:
        if (self.source == "files") != bool(self.parts):
            raise ValueError(
                f"data.source={self.source} with {len(self.parts)} data.parts; "
                "name parts for source=files, and none for worlds"
            )
        return self

    def _examples_of_files(self) -> Examples:
        for part in self.parts:
            if part.root is None and part.name.split("/")[0] not in self.roots:
                family = part.name.split("/")[0]
                raise ConfigError(f"{part.name}: no folder is given; add data.roots.{family}=FOLDER")
        mixed = build_flow_mix(FlowMixSettings(parts=self.parts, roots=self.roots))
        check_flow_datasets([mixed], allowed=self.max_missing)
        return FlowExamples(mixed, self.augment, self.crop)

    def example_size(self) -> tuple[int, int]:
        """Return height and width of an example in pixels."""
        return self.world.size if self.source == "world" else self.crop

    def held_out(self, name: str, root: Path | None, limit: int) -> FlowDataset:
        """Open what is measured on during training: held-out worlds, or a data set by its name."""
        if name == "world":
            return WorldFlow(self.world, held_out_seeds(limit))
        folder = root or self.roots.get(name.split("/")[0])
        if folder is None:
            raise ConfigError(f"evaluation.dataset={name} needs evaluation.root: the folder it lies in")
        return build_flow_dataset(name, folder)

    def save_pictures(self, examples: Examples, folder: Path, *, seed: int) -> None:
        """Write a few examples as they enter the network: both frames and the flow between them."""
        folder.mkdir(parents=True)
        for index in range(min(PICTURES, len(examples))):
            found = examples.example(index, generator(seed, "picture", index))
            source, target = (Image.fromarray(np.moveaxis(found[name], 0, -1)) for name in ("source", "target"))
            flow = flow_picture(np.moveaxis(found["flow"], 0, -1), valid=found["valid"])
            strip([("source", source), ("target", target), ("flow", flow)]).save(folder / f"{index}.jpg", quality=85)


class FlowExamples:
    """Augmented pairs of a data set, for `SupervisedBatches`.

    Args:
        dataset: Where pairs come from.
        augment: Ranges of the augmentation.
        crop: Height and width of an example.
    """

    def __init__(self, dataset: FlowDataset, augment: FlowAugment, crop: tuple[int, int]) -> None:
        self.dataset, self.augment, self.crop = dataset, augment, crop

    def __len__(self) -> int:
        return len(self.dataset)

    def example(self, index: int, generator: np.random.Generator) -> Example:
        """Read a pair and augment it; see `Examples`."""
        sample = augment_flow(self.dataset[index], self.augment, self.crop, generator)
        return {
            "source": channels_first(sample.first),
            "target": channels_first(sample.second),
            "flow": channels_first(sample.flow),
            "valid": np.ascontiguousarray(sample.valid),
        }

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return dict(self.dataset.fingerprint())
