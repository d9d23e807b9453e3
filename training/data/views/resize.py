"""Antialiased bicubic resizing of many crops of different sizes at once, as two batched matrix products.

The weights are whole multiples of a power of two, as in torch's resizing of uint8 images on a CPU. All sums are then
exact in float32: a crop comes out the same, bit for bit, beside any other crops, and as torch's own up to a shrinking
by four; beyond that torch's weights are finer, and a few pixels in a thousand differ by one level.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUPPORT = 2.0
"""Reach of the bicubic kernel, in pixels of the coarser of the two grids."""


MIDDLE = 128
MOST_BITS = 16


def resize_weights(lengths: Tensor, size: int, longest: int) -> Tensor:
    """Return the matrices that resize rows of pixels.

    Args:
        lengths: (N,) int64, pixels of the rows that come in, on the device to compute on.
        size: Pixels of the rows that go out.
        longest: Columns of the matrices, at least the largest of `lengths`.

    Returns:
        (N, size, longest) float32, zero in the columns past each row's length; as `torch.nn.functional.interpolate`
        does with `mode="bicubic", antialias=True`, rounded to multiples of a power of two.
    """
    positions, weights = _bands(lengths, size, longest)
    weights = _to_fixed_point(weights).to(torch.float32)
    matrices = weights.new_zeros(len(lengths), size, longest + 1)  # taps past the row's end go to the last column
    return matrices.scatter_(2, positions, weights)[..., :longest]


def _bands(lengths: Tensor, size: int, longest: int) -> tuple[Tensor, Tensor]:
    """Return the columns (N, size, taps) that are not zero, and their weights."""
    real = torch.float32 if lengths.device.type == "mps" else torch.float64
    scale = (lengths.to(real) / size).view(-1, 1)
    filter_scale = scale.clamp(min=1)
    centre = scale * (torch.arange(size, device=lengths.device) + 0.5)
    first = (centre - SUPPORT * filter_scale + 0.5).to(torch.int64).clamp_(min=0)
    last = torch.minimum((centre + SUPPORT * filter_scale + 0.5).to(torch.int64), lengths.view(-1, 1))
    taps = int(2 * SUPPORT * max(longest / size, 1)) + 2
    positions = first[..., None] + torch.arange(taps, device=lengths.device)
    inside = positions < last[..., None]
    weights = _bicubic((positions - centre[..., None] + 0.5) / filter_scale[..., None]) * inside
    return torch.where(inside, positions, longest), weights / weights.sum(dim=2, keepdim=True)


def _bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _to_fixed_point(weights: Tensor) -> Tensor:
    """Round weights (N, size, taps) to multiples of the finest power of two for which they fit into 16 signed bits."""
    largest = weights.amax(dim=(1, 2), keepdim=True)
    bits = torch.log2((2**15 - 0.5) / largest).ceil() - 1
    unit = torch.exp2(bits.clamp(max=MOST_BITS))
    return (weights.abs() * unit + 0.5).floor() * weights.sign() / unit


def crop_and_resize(
    images: Tensor, which: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int], *, largest: tuple[int, int]
) -> Tensor:
    """Cut boxes out of images and resize them, first along the rows, then along the columns.

    Args:
        images: (B, 3, H, W) uint8.
        which: (N,) int64, the image that each box is cut from.
        boxes: (N, 4) int64 top, left, height and width in pixels.
        flips: (N,) bool, whether to mirror the result.
        size: Height and width of the results in pixels.
        largest: Height and width in pixels that no box exceeds.

    Returns:
        (N, 3, h, w) float32 of whole grey levels.
    """
    levels = _cut(images, which, boxes, largest)
    across = resize_weights(boxes[:, 3], size[1], largest[1])
    across = torch.where(flips[:, None, None], across.flip(1), across)
    down = resize_weights(boxes[:, 2], size[0], largest[0])
    levels = _resample(levels.flatten(1, 2), across).unflatten(1, (3, -1))
    return _resample(levels.mT.flatten(1, 2), down).unflatten(1, (3, -1)).mT.contiguous()


def _cut(images: Tensor, which: Tensor, boxes: Tensor, largest: tuple[int, int]) -> Tensor:
    """Return the boxes' pixels (N, 3, *largest); past a box's own size come pixels that no weight will count."""
    top, left, height, width = boxes.unbind(1)
    rows = top[:, None] + torch.arange(largest[0], device=boxes.device)
    columns = left[:, None] + torch.arange(largest[1], device=boxes.device)
    rows = torch.minimum(rows, (top + height - 1)[:, None])
    columns = torch.minimum(columns, (left + width - 1)[:, None])
    pixels = images.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2).to(torch.float32)


def _resample(rows: Tensor, weights: Tensor) -> Tensor:
    """Resize rows of levels (N, R, longest) to (N, R, size); levels around 0 keep the sums within float32's 24 bits."""
    values = (rows - MIDDLE) @ weights.mT
    offset = MIDDLE * weights.sum(dim=2) + 0.5
    return values.add_(offset[:, None]).floor_().clamp_(0, 255)
