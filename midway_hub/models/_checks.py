"""Checks of what users hand to the network: each error says what was seen, what was wanted, and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from midway_hub._tensors import FLOATS, bounds, check_dense_tensor, is_recorded

LARGEST = 1e4
"""Normalised pixels lie within about 3 of 0, raw ones within 255; what is far beyond overflows inside a network."""
PROCESSOR_HINT = "MidwayImageProcessor makes such tensors from any frames"


def check_frames(
    frames: object, *, name: str, axes: Sequence[int], channels: int, multiple: int, device: torch.device
) -> None:
    """Refuse anything but normalised float frames of a size that the patch grid covers, where the network is.

    While `torch.jit.trace` records, nothing is looked at: sizes and values are those of its example alone.

    Args:
        frames: What the user passed.
        name: How the error calls it.
        axes: Numbers of axes allowed: 4 for images (B, C, H, W), 5 for clips (B, T, C, H, W).
        channels: Channels wanted.
        multiple: Patch size that H and W must be multiples of.
        device: Where the network's weights lie.

    Raises:
        TypeError: Not a tensor.
        ValueError: Wrong axes, channels, dtype, size, device, an empty batch, a tensor that is not dense, or values
            that are not finite or far from those of normalised frames.
    """
    if not isinstance(frames, Tensor):
        raise TypeError(f"{name} must be a normalised tensor, got {type(frames).__name__}; {PROCESSOR_HINT}")
    if torch.jit.is_tracing():
        return
    check_dense_tensor(frames, name)
    shape = tuple(frames.shape)
    layouts = " or ".join({4: f"(B, {channels}, H, W)", 5: f"(B, T, {channels}, H, W)"}[count] for count in axes)
    if frames.ndim not in axes or shape[-3] != channels:
        raise ValueError(f"{name} must have shape {layouts}, got {shape}; {PROCESSOR_HINT}")
    if 0 in shape:
        raise ValueError(f"{name} is empty: shape {shape}; pass at least one frame of at least {multiple}×{multiple}")
    if frames.dtype not in FLOATS:
        raise ValueError(
            f"{name} must be floating point and normalised by the ImageNet mean and standard deviation, "
            f"got {frames.dtype}; {PROCESSOR_HINT}, float() makes float32 of other floats"
        )
    check_size(shape[-2], shape[-1], name=name, multiple=multiple)
    if frames.device != device:
        raise ValueError(f"{name} is on {frames.device}, the network on {device}; move one: frames.to({str(device)!r})")
    if not is_recorded(frames):
        _check_values(frames, name)


def check_weights(weights: Tensor) -> None:
    """Refuse to compute with a network whose weights have no values, or are of a type that nothing computes with."""
    if weights.device.type == "meta":
        raise ValueError(
            "the network is on the meta device, where weights have no values; load it with from_pretrained(), or give "
            "it memory with net.to_empty(device=...) and weights with load_state_dict()"
        )
    if weights.dtype not in FLOATS:
        raise ValueError(
            f"the network is in {weights.dtype}, which nothing computes with; bring it back by net.float()"
        )


def check_pair(source: Tensor, target: Tensor) -> None:
    """Refuse a source and a target frame that differ in shape, dtype or device."""
    for what in ("shape", "dtype", "device"):
        first, second = getattr(source, what), getattr(target, what)
        if first != second:
            if what == "shape":
                first, second = tuple(first), tuple(second)
            raise ValueError(f"source and target must agree in {what}, got {first} and {second}")


def normalise_layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Turn block indices, negatives allowed, into indices from 0; None asks for none.

    Raises:
        ValueError: An index is not a whole number or lies outside the encoder.
    """
    if layers is None:
        return ()
    if isinstance(layers, int) or not all(isinstance(layer, int) for layer in layers):
        raise ValueError(f"layers must be a sequence of block indices such as [2, 5, 8, -1], got {layers!r}")
    wrong = [layer for layer in layers if not -depth <= layer < depth]
    if wrong:
        raise ValueError(f"layers {wrong} do not exist: the encoder has blocks 0 to {depth - 1} (or -{depth} to -1)")
    return tuple(layer % depth for layer in layers)


def check_size(height: int, width: int, *, name: str, multiple: int) -> None:
    """Refuse frames of a height or width that is no multiple of the patch size."""
    if height % multiple or width % multiple:
        nearest = " or ".join(
            f"{step(height)}×{step(width)}"
            for step in (lambda n: max(multiple, n // multiple * multiple), lambda n: -(-n // multiple) * multiple)
        )
        raise ValueError(
            f"{name} of {height}×{width} pixels: both sides must be multiples of {multiple}; the nearest legal sizes "
            f"are {nearest}. MidwayImageProcessor pads any frame, and its undo() crops results back"
        )


def _check_values(frames: Tensor, name: str) -> None:
    low, high = bounds(frames)
    if not (math.isfinite(low) and math.isfinite(high)):
        count = int((~torch.isfinite(frames)).sum())
        raise ValueError(
            f"{name} holds {count} values that are NaN or infinite of {frames.numel()}; frames must be finite"
        )
    if max(-low, high) > LARGEST:
        raise ValueError(
            f"{name} holds values from {low:.3g} to {high:.3g}; normalised frames lie within about 3 of 0, and a "
            f"network overflows on such as these. {PROCESSOR_HINT}"
        )
