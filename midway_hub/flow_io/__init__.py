"""Optical flow in files and in pictures."""

from midway_hub.flow_io.field import FlowField, FlowFileError
from midway_hub.flow_io.files import FLOW_SUFFIXES, read_flow, write_flow
from midway_hub.flow_io.pictures import draw_arrows, error_legend, error_picture, flow_picture, flow_wheel

__all__ = [
    "FLOW_SUFFIXES",
    "FlowField",
    "FlowFileError",
    "draw_arrows",
    "error_legend",
    "error_picture",
    "flow_picture",
    "flow_wheel",
    "read_flow",
    "write_flow",
]
