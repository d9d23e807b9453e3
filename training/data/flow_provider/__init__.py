"""Flow as data: who tells how unaugmented frames move, where that is kept, which of it is valid, and how it is cut."""

from midway_hub.training.data.flow_provider.asked import FlowAsked
from midway_hub.training.data.flow_provider.cache import CachedFlow
from midway_hub.training.data.flow_provider.crop import crop_flow
from midway_hub.training.data.flow_provider.protocol import FlowProvider, Names
from midway_hub.training.data.flow_provider.providers import open_flow_provider
from midway_hub.training.data.flow_provider.settings import WORLD, FlowProviderSettings

__all__ = [
    "WORLD",
    "CachedFlow",
    "FlowAsked",
    "FlowProvider",
    "FlowProviderSettings",
    "Names",
    "crop_flow",
    "open_flow_provider",
]
