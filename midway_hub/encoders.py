"""Encoders by name or folder, whatever method made them and whatever they are: one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from midway_hub.models.convolutional import ConvNetwork
    from midway_hub.models.network import MidwayNetwork


def load_encoder(
    name: str | Path, *, device: torch.device | str | None = None, **kwargs: Any
) -> MidwayNetwork | ConvNetwork:
    """Load an encoder that a method of the training package exported, or a network of the hub, in eval mode.

    Args:
        name: Registry name, Hub repo or folder; a convolutional encoder by its folder.
        device: Where to put it.
        **kwargs: As for `MidwayNetwork.from_pretrained`.

    Returns:
        A network with `encode(images)`, whose `last` is (B, D, h, w) and `cls` (B, D); images are (B, 3, H, W),
        normalised by ImageNet's numbers.

    Raises:
        OSError: The weights cannot be had.
        ValueError: The name is unknown, or weights and architecture do not fit.
    """
    from midway_hub.models.convolutional import ConvConfig, ConvNetwork
    from midway_hub.models.network import MidwayNetwork

    if _model_type(Path(name)) == ConvConfig.model_type:
        network = ConvNetwork.from_pretrained(name, **kwargs).eval()
        return network if device is None else network.to(device)
    return MidwayNetwork.from_pretrained(name, device=device, **kwargs)


def _model_type(folder: Path) -> str | None:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
