"""Pictures with a class for every pixel: data sets, what their label files mean, and what training does to them."""

from midway_hub.training.data.segmentation.check import check_segmentation_dataset
from midway_hub.training.data.segmentation.classes import CLASS_LISTS, ClassList, class_list
from midway_hub.training.data.segmentation.encodings import ENCODINGS, Encoding, LabelError
from midway_hub.training.data.segmentation.histogram import LabelHistogram, label_histogram
from midway_hub.training.data.segmentation.pipeline import SegmentationPipeline, augment_segmentation, resize_for_test
from midway_hub.training.data.segmentation.presets import (
    SEGMENTATION_DATASETS,
    FolderLayout,
    build_segmentation_dataset,
)
from midway_hub.training.data.segmentation.sample import LabelledImage, SegmentationDataset
from midway_hub.training.data.segmentation.world import WorldSegmentation

__all__ = [
    "CLASS_LISTS",
    "ENCODINGS",
    "SEGMENTATION_DATASETS",
    "ClassList",
    "Encoding",
    "FolderLayout",
    "LabelError",
    "LabelHistogram",
    "LabelledImage",
    "SegmentationDataset",
    "SegmentationPipeline",
    "WorldSegmentation",
    "augment_segmentation",
    "build_segmentation_dataset",
    "check_segmentation_dataset",
    "class_list",
    "label_histogram",
    "resize_for_test",
]
