"""The Midway Network as a hub: recognition features and motion from one network.

Names are loaded when first used: `import midway_hub` alone brings in neither torch nor transformers nor timm. Once it
is imported, transformers' Auto classes know `model_type: "midway"`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from midway_hub import _transformers
from midway_hub._version import __version__

if TYPE_CHECKING:
    from midway_hub.config import MidwayConfig
    from midway_hub.encoders import load_encoder
    from midway_hub.extraction import load_features
    from midway_hub.models.backbone import MidwayBackbone
    from midway_hub.models.network import MidwayNetwork
    from midway_hub.outputs import ClipOutput, Features, FlowOutput, Motion, SegmentationOutput
    from midway_hub.processing import MidwayImageProcessor
    from midway_hub.registry import list_models
    from midway_hub.streaming import MotionStream
    from midway_hub.video import open_video

_HOME = {
    "ClipOutput": "outputs",
    "Features": "outputs",
    "FlowOutput": "outputs",
    "MidwayBackbone": "models.backbone",
    "MidwayConfig": "config",
    "MidwayImageProcessor": "processing",
    "MidwayNetwork": "models.network",
    "Motion": "outputs",
    "MotionStream": "streaming",
    "SegmentationOutput": "outputs",
    "list_models": "registry",
    "load_encoder": "encoders",
    "load_features": "extraction",
    "open_video": "video",
}

__all__ = [
    "ClipOutput",
    "Features",
    "FlowOutput",
    "MidwayBackbone",
    "MidwayConfig",
    "MidwayImageProcessor",
    "MidwayNetwork",
    "Motion",
    "MotionStream",
    "SegmentationOutput",
    "__version__",
    "list_models",
    "load_encoder",
    "load_features",
    "open_video",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


_transformers.register_when_loaded()
