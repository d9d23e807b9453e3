"""The `data` section of a segmentation run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from midway_hub.drawing import strip
from midway_hub.processing import IMAGENET, Normalisation
from midway_hub.training.configuration import ConfigError
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.segmentation import (
    SEGMENTATION_DATASETS,
    SegmentationDataset,
    SegmentationPipeline,
    WorldSegmentation,
    augment_segmentation,
    build_segmentation_dataset,
    check_segmentation_dataset,
    class_list,
)
from midway_hub.training.data.segmentation.pipeline import PADDING, Colour, padding_for
from midway_hub.training.data.segmentation.presets import FolderLayout
from midway_hub.training.data.supervised import Example, Examples, SupervisedBatches
from midway_hub.training.data.synthetic import CLASSES, PALETTE, held_out_seeds
from midway_hub.training.data.synthetic.examples import WorldBatches
from midway_hub.training.fields import KeywordsOf
from midway_hub.training.tasks.data import PICTURES, TaskData, channels_first


class SegmentationData(TaskData):
    """Labelled pictures."""

    learned: ClassVar[Literal["flow", "segmentation"]] = "segmentation"

    dataset: str | None = None
    """For `files`: name of the data set, such as `bdd100k/train`, or `folder` for one's own."""

    root: Path | None = None
    """Folder of the data set."""

    options: Annotated[dict[str, Any], KeywordsOf(FolderLayout, "options")] = Field(default_factory=dict)
    """Where a data set's files lie and what their labels mean, where that is not the published way (`FolderLayout`)."""

    pipeline: SegmentationPipeline = SegmentationPipeline()
    """Resizing, crops and colours, for `files`."""

    @model_validator(mode="after")
    def _some_dataset(self) -> SegmentationData:
        if (self.source == "files") != (self.dataset is not None):
            raise ValueError(
                f"data.source={self.source} with data.dataset={self.dataset}; name one for source=files, "
                "none for worlds"
            )
        if self.dataset is not None and self.dataset not in SEGMENTATION_DATASETS:
            raise ValueError(f"there is no data set {self.dataset!r}; there are: {', '.join(SEGMENTATION_DATASETS)}")
        return self

    def classes(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
        """Return names and colours of the classes, without opening the data."""
        if self.dataset is None:
            return CLASSES, PALETTE
        layout = SEGMENTATION_DATASETS[self.dataset].model_copy(update=self.options)
        found = class_list(layout.classes, layout.palette)
        return found.names, found.palette

    def _examples_of_files(self) -> Examples:
        dataset = self._open(self.dataset or "", self.root, "data")
        check_segmentation_dataset(dataset)
        return SegmentationExamples(dataset, self.pipeline)

    def example_size(self) -> tuple[int, int]:
        """Return height and width of an example in pixels."""
        return self.world.size if self.source == "world" else self.pipeline.crop

    def held_out(self, name: str, root: Path | None, limit: int) -> SegmentationDataset:
        """Open what is measured on during training: held-out worlds, or a data set by its name."""
        if name == "world":
            return WorldSegmentation(self.world, held_out_seeds(limit))
        return self._open(name, root or self.root, "evaluation")

    def batches(
        self, examples: Examples, *, normalisation: Normalisation = IMAGENET, **options: Any
    ) -> SupervisedBatches | WorldBatches:
        """Return what feeds the engine; pictures are padded with what is nearest to 0 once normalised."""
        if isinstance(examples, SegmentationExamples):
            padding = padding_for(normalisation)
            examples = SegmentationExamples(examples.dataset, examples.pipeline, padding=padding)
        return super().batches(examples, normalisation=normalisation, **options)

    def save_pictures(self, examples: Examples, folder: Path, *, seed: int) -> None:
        """Write a few examples as they enter the network: picture and classes."""
        _, palette = self.classes()
        folder.mkdir(parents=True)
        colours = np.full((256, 3), 128, np.uint8)
        colours[: len(palette)] = palette
        for index in range(min(PICTURES, len(examples))):
            found = examples.example(index, generator(seed, "picture", index))
            panels = [
                ("picture", Image.fromarray(np.moveaxis(found["image"], 0, -1))),
                ("classes", Image.fromarray(colours[found["labels"]])),
            ]
            strip(panels).save(folder / f"{index}.jpg", quality=85)

    def _open(self, name: str, root: Path | None, section: str) -> SegmentationDataset:
        if root is None:
            raise ConfigError(f"{section}.dataset={name} needs {section}.root: the folder it lies in")
        return build_segmentation_dataset(name, root, **self.options)


class SegmentationExamples:
    """Augmented pictures of a data set, for `SupervisedBatches`.

    Args:
        dataset: Where pictures come from.
        pipeline: Sizes and ranges of the augmentation.
        padding: Colour of what lies beyond a picture's edge.
    """

    def __init__(
        self, dataset: SegmentationDataset, pipeline: SegmentationPipeline, *, padding: Colour = PADDING
    ) -> None:
        self.dataset, self.pipeline, self.padding = dataset, pipeline, padding

    def __len__(self) -> int:
        return len(self.dataset)

    def example(self, index: int, generator: np.random.Generator) -> Example:
        """Read a picture and augment it; see `Examples`."""
        sample = augment_segmentation(self.dataset[index], self.pipeline, generator, padding=self.padding)
        return {"image": channels_first(sample.image), "labels": np.ascontiguousarray(sample.labels)}

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return dict(self.dataset.fingerprint())
