"""A recurrent correlation head for optical flow: matching at 1/8 of the frame, updates, one finer scale."""

from midway_hub.models.correlation.head import CorrelationHead, FlowSequence, SeenFrame

__all__ = ["CorrelationHead", "FlowSequence", "SeenFrame"]
