"""Flow that learns from one's own video, without ground truth."""

from midway_hub.adaptation.adapt import Adaptation, NotBetterError, adapt_flow
from midway_hub.adaptation.losses import census_distance, photometric, smoothness

__all__ = ["Adaptation", "NotBetterError", "adapt_flow", "census_distance", "photometric", "smoothness"]
