"""Flow and segmentation of files, written as files: what `midway-hub flow` and `midway-hub segment` do."""

from midway_hub.dense.estimates import flow_between, labels_of
from midway_hub.dense.flow_files import FlowLook, write_pair_flow, write_video_flow
from midway_hub.dense.label_files import LabelLook, write_image_labels, write_video_labels

__all__ = [
    "FlowLook",
    "LabelLook",
    "flow_between",
    "labels_of",
    "write_image_labels",
    "write_pair_flow",
    "write_video_flow",
    "write_video_labels",
]
