"""Dense predictions on large frames: windows that cover a frame, and the weighted mean of what is predicted in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from midway_hub._tensors import is_recorded

Size = tuple[int, int]
Offset = tuple[int, int]
Part = tuple[Any, slice, slice]

LEAST_STEP = 0.999  # pixels; a little less than 1, as 1 - overlap is not exact
MOST_WINDOWS = 2**18
"""Per frame. CroCo v2's overlap of 0.9 asks for 194,000 windows of 64 pixels in a frame of 2160x3840."""


def overlapping_windows(frame: Size, window: Size, overlap: float) -> list[Offset]:
    """Spread windows evenly over a frame, neighbours sharing at least `overlap` of their side (CroCo v2, tiled flow).

    Args:
        frame: Height and width in pixels, at least the window's.
        window: Height and width of every window.
        overlap: Share of a window's side that the next one covers again, at least 0 and below 1.

    Returns:
        The top left corner (y, x) of every window, row by row; together they cover every pixel.

    Raises:
        ValueError: A window is larger than the frame; or the overlap is out of range, leaves steps of less than a
            pixel, or makes more than 2**18 windows.
    """
    _check_windows(frame, window)
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}")
    stepping = [side for side, total in zip(window, frame, strict=True) if side < total]
    if any((1 - overlap) * side < LEAST_STEP for side in stepping):
        raise ValueError(
            f"overlap {overlap} would step windows of {window[0]}×{window[1]} by less than a pixel; take at most "
            f"{math.floor(1000 * (1 - 1 / min(stepping))) / 1000:g}, CroCo v2 reports at 0.9"
        )
    rows, columns = (_evenly_spread(*sides, overlap) for sides in zip(frame, window, strict=True))
    return _corners(rows, columns, frame, window)


def stepped_windows(frame: Size, window: Size, step: Size) -> list[Offset]:
    """Step windows over a frame, the last of an axis shifted back into it (mmsegmentation's sliding inference).

    Args:
        frame: Height and width in pixels, at least the window's.
        window: Height and width of every window.
        step: Pixels from one window to the next, down and to the right; at most the window's side.

    Returns:
        The top left corner (y, x) of every window, row by row; together they cover every pixel.

    Raises:
        ValueError: A window is larger than the frame, a step leaves pixels out, or there are more than 2**18 windows.
    """
    _check_windows(frame, window)
    if not all(1 <= stride <= side for stride, side in zip(step, window, strict=True)):
        raise ValueError(f"a step must be at least 1 and at most the window's side: step {step}, window {window}")
    rows, columns = (_stepped(*sides) for sides in zip(frame, window, step, strict=True))
    return _corners(rows, columns, frame, window)


def all_alike(prediction: Tensor) -> Tensor:
    """Weigh every pixel of a prediction (B, K, h, w) by one: weights (B, 1, h, w)."""
    return torch.ones_like(prediction[:, :1])


def predict_in_windows(
    predict: Callable[..., Tensor],
    frames: Sequence[Tensor],
    offsets: Sequence[Offset],
    window: Size,
    *,
    weigh: Callable[[Tensor], Tensor] = all_alike,
    at_once: int = 1,
) -> Tensor:
    """Predict in every window and take the weighted mean of what overlaps, in fp32.

    Memory is bounded by `at_once`, with gradients too: windows are then predicted again on the way back.

    Args:
        predict: Maps windows cut out of `frames`, each (B, C, *window), to a prediction (B, K, *window).
        frames: One (B, C, H, W) or several of the same size, such as a source and a target.
        offsets: Top left corner (y, x) of every window; at least one, and together they cover every pixel.
        window: Height and width of every window.
        weigh: Maps a prediction in fp32 to positive weights (B, 1, *window).
        at_once: Windows, over all frames of the batch, that go through `predict` together.

    Returns:
        (B, K, H, W) in fp32: sum of weight times prediction over 1e-16 + sum of weights (CroCo v2).

    Raises:
        ValueError: There are no windows, or a prediction does not have the window's size.
    """
    batch = len(frames[0])
    if batch > at_once:
        some = zip(*(each.split(at_once) for each in frames), strict=True)
        return torch.cat(
            [predict_in_windows(predict, few, offsets, window, weigh=weigh, at_once=at_once) for few in some]
        )
    sums: tuple[Tensor, Tensor] | None = None
    for part, prediction in _predictions(predict, frames, offsets, window, at_once // batch):
        if prediction.shape[-2:] != tuple(window):
            raise ValueError(f"a window of {window} was predicted as {tuple(prediction.shape[-2:])}")
        weight = weigh(prediction)
        if sums is None:
            size = frames[0].shape[-2:]
            sums = prediction.new_zeros(*prediction.shape[:2], *size), weight.new_zeros(*weight.shape[:2], *size)
        weighted, weights = sums
        weighted[part] += weight * prediction
        weights[part] += weight
    if sums is None:
        raise ValueError("there are no windows to predict in")
    return sums[0] / (1e-16 + sums[1])


def _predictions(
    predict: Callable[..., Tensor], frames: Sequence[Tensor], offsets: Sequence[Offset], window: Size, at_once: int
) -> Iterator[tuple[Part, Tensor]]:
    """Yield every window's place and its prediction in fp32, in the order of `offsets`."""
    parts: list[Part] = [(..., slice(y, y + window[0]), slice(x, x + window[1])) for y, x in offsets]
    for start in range(0, len(parts), at_once):
        together = parts[start : start + at_once]
        predicted = _forgetting(predict, *(torch.cat([frame[part] for part in together]) for frame in frames)).float()
        yield from zip(together, predicted.chunk(len(together)), strict=True)


def _forgetting(predict: Callable[..., Tensor], *windows: Tensor) -> Tensor:
    """Predict, keeping no intermediate results for gradients: those of thousands of windows would fill any memory."""
    if torch.is_grad_enabled() and not is_recorded(*windows):
        return checkpoint(predict, *windows, use_reentrant=False)
    return predict(*windows)


def _corners(rows: Sequence[int], columns: Sequence[int], frame: Size, window: Size) -> list[Offset]:
    if len(rows) * len(columns) > MOST_WINDOWS:
        raise ValueError(
            f"a frame of {frame[0]}×{frame[1]} pixels would be cut into {len(rows)}×{len(columns)} windows of "
            f"{window[0]}×{window[1]}, more than {MOST_WINDOWS} in all; take larger windows, less overlap (larger "
            "steps), or a smaller frame"
        )
    return list(product(rows, columns))


def pad_to(frames: Tensor, size: Size) -> Tensor:
    """Repeat the right and the bottom edge of frames (B, C, H, W) until they are at least `size`."""
    missing = [max(wanted - seen, 0) for wanted, seen in zip(size, frames.shape[-2:], strict=True)]
    return F.pad(frames, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else frames


def round_up(size: Size, multiple: int) -> Size:
    """Return the least multiples that are not below height and width."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def _evenly_spread(total: int, window: int, overlap: float) -> list[int]:
    # In floating point, 1 - 0.9 is a little less than 0.1 and whole quotients are counted up: published windows are.
    count = 1 + math.ceil((total - window) / ((1 - overlap) * window))
    last = total - window
    return [round(index * last / (count - 1)) for index in range(count)] if count > 1 else [0]


def _stepped(total: int, window: int, step: int) -> list[int]:
    count = max(total - window + step - 1, 0) // step + 1
    return [min(index * step, total - window) for index in range(count)]


def _check_windows(frame: Size, window: Size) -> None:
    if not all(1 <= side <= total for side, total in zip(window, frame, strict=True)):
        raise ValueError(f"windows of {window} do not fit into frames of {frame}: pad the frames or take smaller ones")
