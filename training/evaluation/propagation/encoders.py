"""What is evaluated: an encoder with everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from midway_hub.training.evaluation.weights import describe_network, weights_digest
from torch import Tensor, nn

from midway_hub import MidwayNetwork
from midway_hub.analysis.propagation_features import FeatureSource, network_features
from midway_hub.analysis.propagation_frames import Encoder
from midway_hub.devices import checked_device

TIMM = "timm:"


@dataclass(frozen=True)
class MeasuredEncoder:
    """An encoder to propagate labels with.

    Attributes:
        name: What tables call it.
        encode: Normalised frames (1, 3, H, W) to features (1, D, h, w).
        settings: Weights, features, layer, precision, device; JSON-able.
        device: Where it runs.
    """

    name: str
    encode: Encoder
    settings: Mapping[str, Any]
    device: torch.device


def network_encoder(
    network: MidwayNetwork, *, name: str, features: FeatureSource = "teacher", layer: int = -1
) -> MeasuredEncoder:
    """Take the features of a network of this package; see `network_features`."""
    settings = {"features": features, "layer": layer, **describe_network(network)}
    encode = network_features(network, features, layer=layer)
    return MeasuredEncoder(f"{name} {features} {layer}", encode, settings, network.device)


def module_encoder(module: nn.Module, *, name: str, layer: int = -1) -> MeasuredEncoder:
    """Take the features of a model of timm's that has `forward_intermediates`, through its final norm.

    Args:
        module: In eval mode; it must take frames of any size (`dynamic_img_size=True` for ViTs).
        name: What tables call it.
        layer: Block from 0; negatives from the last.

    Raises:
        ValueError: It has no `forward_intermediates`, or is in training mode.
    """
    if not hasattr(module, "forward_intermediates") or module.training:
        raise ValueError(f"{name} must be a timm model with forward_intermediates, in eval mode (model.eval())")
    weights = next(module.parameters())
    dtype = weights.dtype

    def encode(frames: Tensor) -> Tensor:
        found = module.forward_intermediates(  # type: ignore[operator]
            frames.to(dtype), indices=[layer], norm=True, stop_early=True, intermediates_only=True
        )
        return found[0]

    settings = {
        "features": "timm",
        "layer": layer,
        "weights": name,
        "sha256": weights_digest(module),
        "dtype": str(weights.dtype).removeprefix("torch."),
        "device": str(weights.device),
    }
    return MeasuredEncoder(f"{name} {layer}", encode, settings, weights.device)


def load_encoder(
    name: str, *, features: FeatureSource = "teacher", layer: int = -1, device: str = "cpu", dtype: str = "float32"
) -> MeasuredEncoder:
    """Load a checkpoint of this package, or `timm:NAME` with the weights that timm gives it.

    Raises:
        ValueError: An unknown name, precision, layer or kind of features.
        OSError: It cannot be loaded.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
    precision = getattr(torch, dtype)
    if not name.startswith(TIMM):
        network = MidwayNetwork.from_pretrained(name, device=device, dtype=precision)
        return network_encoder(network, name=name, features=features, layer=layer)
    import timm

    place = checked_device(device)
    module = timm.create_model(name.removeprefix(TIMM), pretrained=True, num_classes=0, dynamic_img_size=True)
    return module_encoder(module.to(place, precision).eval(), name=name, layer=layer)
