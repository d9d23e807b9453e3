"""One offline HTML page per run: what it did, how it went, and what went wrong."""

from midway_hub.training.report.page import write_report

__all__ = ["write_report"]
