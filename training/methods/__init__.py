"""Pretraining methods, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midway_hub import MidwayConfig
from midway_hub.training.compat import Compat
from midway_hub.training.methods.base import Method, MethodSettings
from midway_hub.training.methods.dino import Dino, DinoSettings
from midway_hub.training.methods.midway import Midway, MidwaySettings
from midway_hub.training.timeline import Timeline

METHODS: dict[str, type[Method]] = {method.name: method for method in (Midway, Dino)}


def make_method(
    name: str,
    settings: MethodSettings | Mapping[str, Any] | None,
    model: MidwayConfig | Mapping[str, Any],
    timeline: Timeline,
    compat: Compat | None = None,
    *,
    lr_batch_size: int | None = None,
) -> Method:
    """Make a method by its name; the other arguments are those of `Method`.

    Raises:
        ValueError: There is no such method; those that there are get listed.
    """
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; methods: {', '.join(METHODS)}")
    return METHODS[name](settings, model, timeline, compat, lr_batch_size=lr_batch_size)


__all__ = ["METHODS", "Dino", "DinoSettings", "Method", "MethodSettings", "Midway", "MidwaySettings", "make_method"]
