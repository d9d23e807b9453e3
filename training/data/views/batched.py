"""Cut and colour the views of many pairs at once, on any device: the recipe of `apply`, from the same draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.views.colour import change_colours
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw
from midway_hub.training.data.views.resize import crop_and_resize

CACHE, MEMORY = 2**22, 2**27
"""Bytes of crops that are worked on at once on a CPU, so that they stay in its cache, and on other devices."""


@torch.no_grad()
def apply_views_batched(
    first: Tensor, second: Tensor, draws: Sequence[ViewDraw], *, memory: int | None = None
) -> dict[str, Tensor]:
    """Make the views of B frame pairs on the device that they are on.

    Grey levels are whole after every operation as in `apply_views`, and differ from its own where a sum falls on the
    edge between two levels: one value in a thousand by one level on photographs, by 3 at most of those measured. A view
    does not depend on what else is in the batch.

    Args:
        first: (B, 3, H, W) uint8 RGB, the earlier frames.
        second: (B, 3, H, W) uint8 RGB, the later frames.
        draws: B draws for frames of this size, all of the same groups.
        memory: Bytes of crops that are worked on at once, a small multiple of which is needed; by default 4 MiB on a
            CPU and 128 MiB on other devices.

    Returns:
        By group, (B, V, 3, S, S) uint8.

    Raises:
        ValueError: Frames that are not (B, 3, H, W) uint8, of two sizes, or not those drawn for; draws that differ in
            groups or in sizes of views.
    """
    _check(first, second, draws)
    if memory is None:
        memory = CACHE if first.device.type == "cpu" else MEMORY
    with _full_precision(first.device):
        return {
            group: _make_group(first, second, [draw.groups[group] for draw in draws], memory)
            for group in draws[0].groups
        }


def _check(first: Tensor, second: Tensor, draws: Sequence[ViewDraw]) -> None:
    for name, frames in (("first", first), ("second", second)):
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"{name} frames are {frames.dtype} {tuple(frames.shape)}, wanted uint8 (B, 3, H, W)")
    if first.shape != second.shape:
        raise ValueError(f"first frames are {tuple(first.shape)} and second frames {tuple(second.shape)}; pair them")
    if len(draws) != len(first) or not len(draws):
        raise ValueError(f"{len(draws)} draws for {len(first)} frame pairs; wanted one draw per pair")
    for draw in draws:
        if draw.size != tuple(first.shape[2:]):
            raise ValueError(f"the frames are {tuple(first.shape[2:])}, views were drawn for {draw.size}")
        if _layout(draw) != _layout(draws[0]):
            raise ValueError(f"draws of one batch differ: {_layout(draw)} and {_layout(draws[0])}")


def _layout(draw: ViewDraw) -> dict[str, tuple[int, int]]:
    """Return the number and the size of the views of every group."""
    return {group: (len(crops), crops.view_size) for group, crops in draw.groups.items()}


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep matrix products in float32: resizing relies on exact sums, which TF32 and autocasting break."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _make_group(first: Tensor, second: Tensor, crops: Sequence[CropDraw], memory: int) -> Tensor:
    count, size = len(crops[0]), crops[0].view_size
    views = first.new_empty(len(crops), count, 3, size, size)
    half = count // 2
    for frames, mine in ((first, slice(0, half)), (second, slice(half, count))):
        boxes = np.concatenate([crop.boxes[mine] for crop in crops])
        flips = np.concatenate([crop.flips[mine] for crop in crops])
        colour = ColourDraw.concatenate([crop.colour[mine] for crop in crops])
        pair, view = np.divmod(np.arange(len(boxes)), half)
        for chunk in _chunks(boxes, size, memory):
            which, where, box, flip = (
                torch.from_numpy(values[chunk]).to(first.device) for values in (pair, view + mine.start, boxes, flips)
            )
            height, width = boxes[chunk, 2:].max(axis=0).tolist()
            made = crop_and_resize(frames, which, box, flip, size, largest=(height, width))
            views[which, where] = change_colours(made, colour[chunk]).to(torch.uint8)
    return views


def _chunks(boxes: np.ndarray, size: int, memory: int) -> Iterator[np.ndarray]:
    """Yield the numbers of boxes to work on together: alike in size, and no more than the memory holds."""
    order = np.argsort(-boxes[:, 2:].max(axis=1), kind="stable")
    while len(order):
        side = max(size, boxes[order[0], 2:].max())
        count = max(1, memory // (3 * 4 * side * side))
        yield order[:count]
        order = order[count:]
