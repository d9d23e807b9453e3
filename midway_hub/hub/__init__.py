"""From a registry name, Hub repository, folder or file to verified local files; and back to the Hub."""

from midway_hub.cards import write_model_card
from midway_hub.hub.errors import (
    CorruptWeightsError,
    WeightsAccessError,
    WeightsError,
    WeightsNotFoundError,
    WeightsUnavailableError,
)
from midway_hub.hub.preprocessor import beside, resolve_preprocessor
from midway_hub.hub.push import push_folder, push_to_hub
from midway_hub.hub.resolution import Resolved, resolve
from midway_hub.hub.weight_files import check_safetensors, shapes_of
from midway_hub.registry import UnknownModelError

__all__ = [
    "CorruptWeightsError",
    "Resolved",
    "UnknownModelError",
    "WeightsAccessError",
    "WeightsError",
    "WeightsNotFoundError",
    "WeightsUnavailableError",
    "beside",
    "check_safetensors",
    "push_folder",
    "push_to_hub",
    "resolve",
    "resolve_preprocessor",
    "shapes_of",
    "write_model_card",
]
