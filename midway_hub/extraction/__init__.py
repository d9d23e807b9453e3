"""Features and motion of images and videos as files: what `midway-hub features` and `midway-hub motion` do.

Every source gives one file, which appears whole or not at all; the next run skips those that are finished. In order of
reading: `jobs` (what is computed), `runner` (how the work goes on), `plan`, `sources`, `frames`, `spool`, `provenance`.
Names are loaded when first used, so that reading an output's metadata needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from midway_hub.extraction.jobs import extract_features, extract_motion
    from midway_hub.extraction.plan import OutputExistsError
    from midway_hub.extraction.processes import choose_device
    from midway_hub.extraction.results import Extraction, Failure, Progress, Written
    from midway_hub.extraction.sources import Source, Sources, find_motion_sources, find_sources
    from midway_hub.extraction.spool import StorageError, read_metadata
    from midway_hub.extraction.table import FeatureTable, load_features

_HOME = {
    "Extraction": "results",
    "Failure": "results",
    "FeatureTable": "table",
    "OutputExistsError": "plan",
    "Progress": "results",
    "Source": "sources",
    "Sources": "sources",
    "StorageError": "spool",
    "Written": "results",
    "choose_device": "processes",
    "extract_features": "jobs",
    "extract_motion": "jobs",
    "find_motion_sources": "sources",
    "find_sources": "sources",
    "load_features": "table",
    "read_metadata": "spool",
}

__all__ = [
    "Extraction",
    "Failure",
    "FeatureTable",
    "OutputExistsError",
    "Progress",
    "Source",
    "Sources",
    "StorageError",
    "Written",
    "choose_device",
    "extract_features",
    "extract_motion",
    "find_motion_sources",
    "find_sources",
    "load_features",
    "read_metadata",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
