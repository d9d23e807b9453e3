"""Teaches transformers' Auto classes the Midway Network, without importing transformers for it.

An Auto class lives in a module of its own; its registration runs right after that module is loaded, or at once where
it already is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from midway_hub import registry

_OF_AUTO_CLASSES = ("trust_remote_code", "code_revision", "use_fast", "backend", "use_timm_backbone")
"""Arguments that say which class an Auto class takes, or whose code."""


def _register_config(auto: ModuleType) -> None:
    from midway_hub.config import MidwayConfig

    auto.AutoConfig.register(MidwayConfig.model_type, MidwayConfig, exist_ok=True)
    _open_by_name(auto.AutoConfig, MidwayConfig)


def _register_models(auto: ModuleType) -> None:
    from midway_hub.config import MidwayConfig
    from midway_hub.models.backbone import MidwayBackbone
    from midway_hub.models.network import MidwayNetwork

    auto.AutoModel.register(MidwayConfig, MidwayNetwork, exist_ok=True)
    auto.AutoBackbone.register(MidwayConfig, MidwayBackbone, exist_ok=True)
    _open_by_name(auto.AutoModel, MidwayNetwork)
    _open_by_name(auto.AutoBackbone, MidwayBackbone)


def _register_processor(auto: ModuleType) -> None:
    from midway_hub.config import MidwayConfig
    from midway_hub.processing import MidwayImageProcessor, register_image_processor

    register_image_processor(auto.AutoImageProcessor, MidwayConfig)
    _open_by_name(auto.AutoImageProcessor, MidwayImageProcessor)


def _open_by_name(auto_class: Any, ours: Any) -> None:
    """Let an Auto class open our registry names, which it would look for on the Hub, in vain and for long."""
    theirs = auto_class.from_pretrained.__func__
    if hasattr(theirs, "opens_midway_names"):
        return

    @functools.wraps(theirs)
    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        if not registry.is_name(pretrained_model_name_or_path):
            return theirs(cls, pretrained_model_name_or_path, *args, **kwargs)
        for option in _OF_AUTO_CLASSES:
            kwargs.pop(option, None)
        return ours.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    from_pretrained.opens_midway_names = True  # type: ignore[attr-defined]  # a mark, so that it is done once
    auto_class.from_pretrained = classmethod(from_pretrained)


REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_processor,
}


class _ThenRegister(Loader):
    """A module's own loader, followed by our registration."""

    def __init__(self, loader: Loader, register: Callable[[ModuleType], None]) -> None:
        self.loader, self.register = loader, register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.register(module)


class _AutoModuleFinder(MetaPathFinder):
    """Finds the Auto modules through the other finders and hooks the registration to their loaders."""

    def __init__(self) -> None:
        self.searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in REGISTRATIONS or self.searching:
            return None
        self.searching = True
        try:
            spec = find_spec(name)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, REGISTRATIONS[name])
        return spec


def register_when_loaded() -> None:
    """Register with every Auto class that is loaded, and with the others when they are."""
    if not any(isinstance(finder, _AutoModuleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoModuleFinder())
    for name, register in REGISTRATIONS.items():
        if name in sys.modules:
            register(sys.modules[name])
