"""Checks of what users hand to the image processor: each error says what was seen, what was wanted, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from midway_hub._tensors import FLOATS, check_dense_tensor
from midway_hub.processing.geometry import UNDO_MODES, Geometry, Size, by
from midway_hub.processing.normalisation import Normalisation

LEAST_STD = 1e-3  # a quarter of a grey level: anything below is a slip, and overflows half precision
_WRITTEN_BY_TRANSFORMERS = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")


def refuse_unknown(extra: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that do not exist, naming the nearest that does."""
    known = list(known)
    for name in extra:
        if name in _WRITTEN_BY_TRANSFORMERS:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
        raise TypeError(f"MidwayImageProcessor takes no argument {name!r}; {advice}")


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Refuse anything but one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def count(name: str, value: Any) -> int:
    """Refuse anything but a whole number of at least 1."""
    if not _is_count(value):
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def pair(name: str, value: Any) -> Size:
    """Refuse anything but (height, width) in pixels."""
    if not isinstance(value, Sequence) or len(value) != 2 or not all(_is_count(side) for side in value):
        raise ValueError(f"{name} must be (height, width) in pixels, at least 1 each, got {value!r}")
    return int(value[0]), int(value[1])


def target_size(size: Any, fit: str) -> int | Size | None:
    """Refuse a size that does not go with the fit; a single number becomes a square except for "shortest"."""
    if size is None:
        if fit == "pad":
            return None
        wanted = "the length of the short side" if fit == "shortest" else "(height, width)"
        raise ValueError(f"fit={fit!r} needs size, {wanted} in pixels")
    if fit == "shortest":
        if not _is_count(size):
            raise ValueError(f"fit='shortest' takes size as one number, the length of the short side, got {size!r}")
        return int(size)
    return (int(size), int(size)) if _is_count(size) else pair("size", size)


def three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    """Refuse anything but three finite numbers, one per RGB channel."""
    try:
        numbers = tuple(math.nan if isinstance(value, str | bool) else float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be three finite numbers, one per RGB channel, got {values!r}")
    return numbers[0], numbers[1], numbers[2]


def normalisation(image_mean: Any, image_std: Any) -> Normalisation:
    """Refuse anything but mean and standard deviation of RGB values between 0 and 1."""
    mean, std = three_numbers("image_mean", image_mean), three_numbers("image_std", image_std)
    if min(std) <= 0:
        raise ValueError(f"image_std must be positive, got {std}")
    scale = "of pixels from 0 to 1; numbers for pixels from 0 to 255 are divided by 255"
    if not all(-1 <= value <= 1 for value in mean):
        raise ValueError(f"image_mean must be from -1 to 1, {scale}; got {mean}")
    if not all(LEAST_STD <= value <= 1 for value in std):
        raise ValueError(f"image_std must be from {LEAST_STD} to 1, {scale}; got {std}")
    return Normalisation(mean, std)


def check_lengths(items: Sequence[Tensor], name: str) -> None:
    """Refuse clips of different lengths in one batch."""
    lengths = [item.shape[0] for item in items if item.ndim == 4]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{name} hold {', '.join(map(str, lengths))} frames; the clips of a batch must be equally long"
        )


def check_dense(dense: Any, geometry: Any, mode: str, fill: float) -> None:
    """Refuse what cannot be brought back from the model input of `geometry`."""
    if not isinstance(dense, Tensor):
        raise TypeError(f"dense must be a tensor, got {type(dense).__name__}; or what net.flow() returned")
    if not isinstance(geometry, Geometry):
        raise TypeError(f"geometry must be the inputs.geometry of a processed batch, got {type(geometry).__name__}")
    check_dense_tensor(dense, "dense")
    choice("mode", mode, UNDO_MODES)
    shape, items, (height, width) = tuple(dense.shape), len(geometry), geometry.model_size
    if dense.ndim < 3 or 0 in shape:
        raise ValueError(f"dense must have shape (B, ..., h, w) and not be empty, got {shape}")
    if shape[0] != items:
        raise ValueError(f"dense of shape {shape} holds {shape[0]} items along its first axis, the batch held {items}")
    if height % shape[-2] or width % shape[-1] or height // shape[-2] != width // shape[-1]:
        raise ValueError(
            f"dense is {by((shape[-2], shape[-1]))}, no whole fraction of the model input {by((height, width))}; "
            f"was it computed from this batch?"
        )
    if dense.dtype not in FLOATS:
        if mode != "nearest":
            raise ValueError(f"dense of dtype {dense.dtype} cannot be interpolated: take mode='nearest', or floats")
        if math.isnan(fill) and any(placement.cropped for placement in geometry.placements):
            raise ValueError(f"dtype {dense.dtype} has no NaN for the cropped-away pixels: pass fill, such as fill=255")


def looks_like_flow(dense: Tensor, geometry: Geometry) -> bool:
    """Tell whether these may be vectors, (B, ..., 2, H, W) of the model input's size, that resizing makes wrong."""
    resized = any(placement.resized != placement.source for placement in geometry.placements)
    whole = dense.shape[-2:] == geometry.model_size
    return resized and whole and dense.is_floating_point() and dense.ndim >= 4 and dense.shape[-3] == 2


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
