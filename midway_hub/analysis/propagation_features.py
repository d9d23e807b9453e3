"""Features of a network, as label propagation takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from midway_hub.analysis.propagation_frames import FrameEncoder
from midway_hub.models.network import MidwayNetwork

FeatureSource = Literal["teacher", "student", "backward"]
SOURCES = ("teacher", "student", "backward")


def network_features(net: MidwayNetwork, source: FeatureSource = "teacher", *, layer: int = -1) -> FrameEncoder:
    """Return what turns normalised frames (B, 3, H, W) into features (B, D, h, w) of one layer of a network.

    Frames are normalised as the network's checkpoint says, and of whole patches.

    Args:
        net: The network.
        source: `"teacher"` or `"student"`: that encoder's, through the final norm. `"backward"`: the target's backward
            features, which the dynamics refine from the top down; the levels of the configuration have them.
        layer: Block from 0, negatives from the last; for `"backward"` a level, or -1 for the lowest.

    Raises:
        ValueError: The name or the layer is unknown, or the checkpoint has no dynamics.
    """
    if source not in SOURCES:
        raise ValueError(f"features must be one of {', '.join(SOURCES)}, got {source!r}")
    if source == "backward":
        return _backward_features(net, layer)
    depth = net.config.depth
    if not -depth <= layer < depth:
        raise ValueError(f"layer must be a block from 0 to {depth - 1}, or from -{depth} to -1, got {layer}")

    def encode(frames: Tensor) -> Tensor:
        return net.encode(frames, layers=(layer,), network=source).layers[0]

    return _of_frames(net, encode)


def _backward_features(net: MidwayNetwork, layer: int) -> FrameEncoder:
    if not net.config.dynamics:
        raise ValueError("this checkpoint holds an encoder alone, no dynamics; take its teacher features")
    levels = tuple(net.config.levels)
    level = levels[-1] if layer == -1 else layer
    if level not in levels:
        raise ValueError(f"backward features are at levels {', '.join(map(str, levels))} (-1: the lowest), got {layer}")
    blocks = (*levels, net.config.depth - 1)

    def encode(frames: Tensor) -> Tensor:
        tokens = net.encoder("teacher").tokens(frames.to(net.dtype), blocks)
        found = net.dynamics.backward_features(dict(zip(blocks, tokens, strict=True)))[level]
        patch = net.config.patch_size
        return found[:, 1:].transpose(1, 2).unflatten(2, (frames.shape[-2] // patch, frames.shape[-1] // patch))

    return _of_frames(net, encode)


def _of_frames(net: MidwayNetwork, encode: Callable[[Tensor], Tensor]) -> FrameEncoder:
    return FrameEncoder(encode, net.image_processor.normalisation, multiple=net.config.patch_size)
