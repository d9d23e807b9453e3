"""One training step as a reading map: what runs in which order, what is minimised, and who follows whom."""

from midway_hub.training.trace.step import trace_step

__all__ = ["trace_step"]
