"""Cut and colour the views of many clips at once, on any device: the recipe of `apply`, from the same draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.views.apply import geometry_of
from midway_hub.training.data.views.colour import change_colours
from midway_hub.training.data.views.draw import ColourDraw, CropDraw, ViewDraw
from midway_hub.training.data.views.resize import crop_and_resize

CACHE, MEMORY = 2**22, 2**27
"""Bytes of crops that are worked on at once on a CPU, so that they stay in its cache, and on other devices."""


@torch.no_grad()
def apply_views_batched(frames: Tensor, draws: Sequence[ViewDraw], *, memory: int | None = None) -> dict[str, Tensor]:
    """Make the views of B clips on the device that they are on.

    Grey levels are whole after every operation as in `apply_views`, and differ from its own where a sum falls on the
    edge between two levels: one value in a thousand by one level on photographs, by 3 at most of those measured. A view
    does not depend on what else is in the batch.

    Args:
        frames: (B, T, 3, H, W) uint8 RGB.
        draws: B draws for frames of this size, all of the same groups.
        memory: Bytes of crops that are worked on at once, a small multiple of which is needed; by default 4 MiB on a
            CPU and 128 MiB on other devices.

    Returns:
        By group, (B, V, 3, h, w) uint8, and what goes with it: see `geometry_of`.

    Raises:
        ValueError: Frames that are not (B, T, 3, H, W) uint8, or not those drawn for; draws that differ in groups or in
            sizes of views.
    """
    _check(frames, draws)
    if memory is None:
        memory = CACHE if frames.device.type == "cpu" else MEMORY
    with _full_precision(frames.device):
        made = {group: _make_group(frames, [draw.groups[group] for draw in draws], memory) for group in draws[0].groups}
    geometry = [geometry_of(draw) for draw in draws]
    return made | {name: torch.stack([each[name] for each in geometry]).to(frames.device) for name in geometry[0]}


def _check(frames: Tensor, draws: Sequence[ViewDraw]) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames are {frames.dtype} {tuple(frames.shape)}, wanted uint8 (B, T, 3, H, W)")
    if len(draws) != len(frames) or not len(draws):
        raise ValueError(f"{len(draws)} draws for {len(frames)} clips; wanted one draw per clip")
    for draw in draws:
        if draw.size != tuple(frames.shape[3:]):
            raise ValueError(f"the frames are {tuple(frames.shape[3:])}, views were drawn for {draw.size}")
        if _layout(draw) != _layout(draws[0]):
            raise ValueError(f"draws of one batch differ: {_layout(draw)} and {_layout(draws[0])}")


def _layout(draw: ViewDraw) -> dict[str, tuple[int, tuple[int, int]]]:
    """Return the number and the size of the views of every group."""
    return {group: (len(crops), crops.size) for group, crops in draw.groups.items()}


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


def _make_group(frames: Tensor, crops: Sequence[CropDraw], memory: int) -> Tensor:
    count, size, length = len(crops[0]), crops[0].size, frames.shape[1]
    images = frames.flatten(0, 1)
    views = frames.new_empty(len(crops) * count, 3, *size)
    boxes, flips = (np.concatenate([getattr(crop, name) for crop in crops]) for name in ("boxes", "flips"))
    image = np.concatenate([number * length + crop.frames for number, crop in enumerate(crops)])
    colour = ColourDraw.concatenate([crop.colour for crop in crops])
    for chunk in _chunks(boxes, size, memory):
        which, where, box, flip = (
            torch.from_numpy(values[chunk]).to(frames.device) for values in (image, np.arange(len(boxes)), boxes, flips)
        )
        height, width = boxes[chunk, 2:].max(axis=0).tolist()
        made = crop_and_resize(images, which, box, flip, size, largest=(height, width))
        views[where] = change_colours(made, colour[chunk]).to(torch.uint8)
    return views.unflatten(0, (len(crops), count))


def _chunks(boxes: np.ndarray, size: tuple[int, int], memory: int) -> Iterator[np.ndarray]:
    """Yield the numbers of boxes to work on together: alike in size, and no more than the memory holds."""
    order = np.argsort(-boxes[:, 2:].max(axis=1), kind="stable")
    while len(order):
        side = max(*size, boxes[order[0], 2:].max())
        count = max(1, memory // (3 * 4 * side * side))
        yield order[:count]
        order = order[count:]
