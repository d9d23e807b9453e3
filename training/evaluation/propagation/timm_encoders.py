"""Encoders of timm's: their features, and frames as each was trained on them (`pretrained_cfg`)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from midway_hub.analysis.propagation_frames import FrameEncoder
from midway_hub.processing.checks import normalisation

ANY_SIZE = "dynamic_img_size"

logger = logging.getLogger("midway_hub")


def load_module(name: str) -> nn.Module:
    """Make a model of timm's with its weights, for frames of any size where its kind can do that.

    Args:
        name: As timm calls it, such as `vit_small_patch14_dinov2`.

    Raises:
        ValueError: timm has no such model, or no weights of it.
        OSError: They cannot be fetched.
    """
    import timm

    try:
        return _created(timm, name)
    except RuntimeError as error:  # an unknown name, or a model without weights
        raise ValueError(f"timm:{name} cannot be loaded: {error}") from error


def _created(timm: Any, name: str) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **{ANY_SIZE: True})
    except TypeError as error:
        if ANY_SIZE not in str(error):
            raise
        return timm.create_model(name, pretrained=True, num_classes=0)


def module_frames(module: nn.Module, *, name: str, layer: int) -> FrameEncoder:
    """Return what turns frames into a model's features, through its final norm where it has one for them.

    Frames are normalised by the mean and standard deviation of the model's `pretrained_cfg`. Their sides are whole
    patches, or whole steps of the coarsest map that a convolutional model makes. A model of a fixed size, whose kind
    cannot take others, gets frames of that size, whatever their proportions.

    Args:
        module: A model of timm's, in eval mode.
        name: What errors call it.
        layer: Block or stage from 0; negatives from the last.

    Raises:
        ValueError: It is in training mode, has no `forward_intermediates` or `pretrained_cfg`, takes no RGB frames, or
            its `pretrained_cfg` normalises by something that is no mean and standard deviation.
    """
    config = getattr(module, "pretrained_cfg", None)
    if not hasattr(module, "forward_intermediates") or not config or module.training:
        raise ValueError(
            f"{name} must be a timm model with forward_intermediates and pretrained_cfg, in eval mode (model.eval())"
        )
    channels, *sides = config["input_size"]
    if channels != 3:
        raise ValueError(f"{name} takes frames of {channels} channels, wanted 3")
    try:
        own = normalisation(config["mean"], config["std"])
    except ValueError as error:
        raise ValueError(f"the pretrained_cfg of {name}: {error}") from error
    size = (int(sides[0]), int(sides[1])) if _is_of_one_size(module, config) else None
    if size is not None:
        logger.warning("%s takes frames of %d×%d pixels alone: they are resized to that", name, *size)
    return FrameEncoder(_features(module, name, layer), own, multiple=_step(module), size=size)


def _is_of_one_size(module: nn.Module, config: Any) -> bool:
    return bool(config.get("fixed_input_size")) and not _any_size(module)


def _any_size(module: nn.Module) -> bool:
    """Tell whether the model was made for frames of any size."""
    parts = (module, getattr(module, "patch_embed", None))
    return any(getattr(part, ANY_SIZE, False) for part in parts) or not getattr(parts[1], "strict_img_size", True)


def _step(module: nn.Module) -> int:
    """Return how many pixels the coarsest of a model's maps goes on from place to place."""
    found = [int(info["reduction"]) for info in getattr(module, "feature_info", None) or () if "reduction" in info]
    return max(found, default=1)


def _features(module: nn.Module, name: str, layer: int) -> Any:
    dtype = next(module.parameters()).dtype

    def encode(frames: Tensor) -> Tensor:
        options: dict[str, Any] = {"indices": [layer], "stop_early": True, "intermediates_only": True}
        try:
            try:
                found = module.forward_intermediates(frames.to(dtype), norm=True, **options)  # type: ignore[operator]
            except AssertionError as error:  # some kinds have no norm for them
                if "norm" not in str(error):
                    raise
                found = module.forward_intermediates(frames.to(dtype), norm=False, **options)  # type: ignore[operator]
        except (AssertionError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            height, width = frames.shape[-2:]
            raise ValueError(f"{name}, layer {layer}, cannot encode a frame of {height}×{width}: {error}") from error
        return found[0]

    return encode
