"""Flow and segmentation of files, written as files: what `midway-hub flow` and `midway-hub segment` do."""

from midway_hub.dense.estimates import FlowEstimate, clip_flow, flow_between, labels_of
from midway_hub.dense.flow_files import FlowLook, write_pair_flow, write_video_flow
from midway_hub.dense.flow_folder import write_flow_folder
from midway_hub.dense.flow_sources import FlowSource, find_flow_sources
from midway_hub.dense.label_files import LabelLook, write_image_labels, write_video_labels
from midway_hub.dense.label_folder import write_label_folder

__all__ = [
    "FlowEstimate",
    "FlowLook",
    "FlowSource",
    "LabelLook",
    "clip_flow",
    "find_flow_sources",
    "flow_between",
    "labels_of",
    "write_flow_folder",
    "write_image_labels",
    "write_label_folder",
    "write_pair_flow",
    "write_video_flow",
    "write_video_labels",
]
