"""What is evaluated: an encoder with everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from midway_hub import MidwayNetwork, encoders
from midway_hub.analysis.propagation_features import FeatureSource, network_features
from midway_hub.analysis.propagation_frames import Encoder, FrameEncoder
from midway_hub.devices import checked_device
from midway_hub.models.convolutional import ConvNetwork
from midway_hub.training.evaluation.propagation.timm_encoders import load_module, module_frames
from midway_hub.training.evaluation.weights import describe_network, weights_digest

TIMM = "timm:"


@dataclass(frozen=True)
class MeasuredEncoder:
    """An encoder to propagate labels with.

    Attributes:
        name: What tables call it.
        encode: Normalised frames (1, 3, H, W) to features (1, D, h, w); a `FrameEncoder` says how they are made.
        settings: Weights, features, layer, what frames must be, precision, device; JSON-able.
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
    encode = network_features(network, features, layer=layer)
    settings = {"features": features, "layer": layer, "frames": encode.described(), **describe_network(network)}
    return MeasuredEncoder(f"{name} {features} {layer}", encode, settings, network.device)


def maps_encoder(network: ConvNetwork, *, name: str, layer: int = -1) -> MeasuredEncoder:
    """Take a map of a convolutional encoder that a run exported.

    Args:
        network: In eval mode.
        name: What tables call it.
        layer: Map from 0; negatives from the last.

    Raises:
        ValueError: There is no such map.
    """
    count = len(network.dims)
    if not -count <= layer < count:
        raise ValueError(f"{name} has {count} maps, numbered from 0 (or from -1 backwards); there is no map {layer}")
    encode = FrameEncoder(
        lambda frames: network.encode(frames.to(network.dtype), layers=[layer]).layers[0], multiple=network.strides[-1]
    )
    settings = {
        "features": "maps",
        "layer": layer,
        "frames": encode.described(),
        "weights": name,
        "sha256": weights_digest(network),
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": str(network.device),
        **encode.normalisation.to_dict(),
    }
    return MeasuredEncoder(f"{name} {layer}", encode, settings, network.device)


def module_encoder(module: nn.Module, *, name: str, layer: int = -1) -> MeasuredEncoder:
    """Take the features of a model of timm's, frames made as it was trained on them; see `module_frames`.

    Args:
        module: In eval mode.
        name: What tables call it.
        layer: Block or stage from 0; negatives from the last.

    Raises:
        ValueError: As `module_frames`.
    """
    encode = module_frames(module, name=name, layer=layer)
    weights = next(module.parameters())
    config: Any = module.pretrained_cfg
    settings = {
        "features": "timm",
        "layer": layer,
        "frames": encode.described(),
        "weights": name,
        "tag": config.get("tag"),
        "sha256": weights_digest(module),
        "dtype": str(weights.dtype).removeprefix("torch."),
        "device": str(weights.device),
        **encode.normalisation.to_dict(),
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
        network = encoders.load_encoder(name, device=device, dtype=precision)
        if isinstance(network, ConvNetwork):
            return maps_encoder(network, name=name, layer=layer)
        return network_encoder(network, name=name, features=features, layer=layer)
    place = checked_device(device)
    module = load_module(name.removeprefix(TIMM))
    return module_encoder(module.to(place, precision).eval(), name=name, layer=layer)
