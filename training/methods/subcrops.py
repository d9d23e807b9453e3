"""PooDLe's pairs of sub-crops: places on a jittered grid, followed into the other frame by flow (section 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.training.losses import exactly

TRIES = 5


class SubcropPlan(NamedTuple):
    """K sub-crops of each of B images and their partners.

    Attributes:
        source: (B, K, 4) boxes: centre y and x, height, width.
        target: (B, K, 4) those of the partners.
        same_frame: (B, K) bool, whether a partner is of the image itself, as flow led nowhere.
    """

    source: Tensor
    target: Tensor
    same_frame: Tensor


def plan_subcrops(
    flow: Tensor,
    *,
    count: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    jitter: float,
    generator: torch.Generator | None = None,
) -> SubcropPlan:
    """Draw sub-crops and where they are in the other frame.

    A centre is uniform in a cell of a grid whose side goes by the mean area; cells are drawn without replacement. It
    moves with the flow there and a jitter. Where that leads out of the frame it is drawn again, five times in all; then
    both sub-crops are of the same frame and place. The partner is at least as large, and clipped to its frame.

    Args:
        flow: (B, 2, H, W) in pixels.
        count: Sub-crops K of an image.
        area: Least and most area as shares of the image.
        aspect: Least and most width over height.
        jitter: Largest jitter as a share of height and width.
        generator: Where the numbers come from; None: torch's own.
    """
    height, width = flow.shape[-2:]
    side = max(1, round(math.sqrt(sum(area) / 2) * min(height, width)))
    rows, columns = -(-height // side), -(-width // side)
    known = flow.detach().cpu()
    plans = [
        _plan_one(known[row], (rows, columns, side), count, area, aspect, jitter, generator)
        for row in range(len(known))
    ]
    return SubcropPlan(*(torch.stack(parts).to(flow.device) for parts in zip(*plans, strict=True)))


def _plan_one(
    flow: Tensor,
    grid: tuple[int, int, int],
    count: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    jitter: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, side = grid
    height, width = flow.shape[-2:]
    order = torch.randperm(rows * columns, generator=generator).tolist()
    source, target, same = [], [], []
    for number in range(count):
        row, column = divmod(order[number % len(order)], columns)
        share = _uniform(*area, generator)
        h, w = _sides(share * height * width, aspect, generator)
        for _ in range(TRIES):
            y = max(_uniform(row * side, min((row + 1) * side, height - 1), generator), h / 2)
            x = max(_uniform(column * side, min((column + 1) * side, width - 1), generator), w / 2)
            moved = flow[:, int(y), int(x)].tolist()
            there_y = round(y + moved[1] + _uniform(-jitter, jitter, generator) * height)
            there_x = round(x + moved[0] + _uniform(-jitter, jitter, generator) * width)
            if 0 <= there_y < height and 0 <= there_x < width:
                break
        led = 0 <= there_y < height and 0 <= there_x < width
        there_y, there_x = (there_y, there_x) if led else (y, x)
        larger = _sides(_uniform(share, area[1], generator) * height * width, aspect, generator)
        source.append([y, x, h, w])
        target.append(_clipped((there_y, there_x, *larger), height, width))
        same.append(not led)
    return torch.tensor(source), torch.tensor(target), torch.tensor(same)


def _clipped(box: tuple[float, float, float, float], height: int, width: int) -> list[float]:
    """Cut off what of a box lies outside."""
    y, x, h, w = box
    top, bottom = max(0.0, y - h / 2), min(float(height), y + h / 2)
    left, right = max(0.0, x - w / 2), min(float(width), x + w / 2)
    return [(top + bottom) / 2, (left + right) / 2, bottom - top, right - left]


def cut(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes (B, K, 4) out of images (B, C, H, W) and resize them, (B·K, C, size, size); zeros lie outside."""
    height, width = images.shape[-2:]
    y, x, h, w = boxes.float().flatten(0, 1).unbind(1)
    zero = torch.zeros_like(y)
    rows = torch.stack(
        [
            torch.stack([w / width, zero, 2 * x / width - 1], dim=1),
            torch.stack([zero, h / height, 2 * y / height - 1], dim=1),
        ],
        dim=1,
    )
    repeated = images.repeat_interleave(boxes.shape[1], dim=0)
    with exactly(images):  # in half precision, places are off by pixels
        grid = F.affine_grid(rows, [len(repeated), images.shape[1], size, size], align_corners=False)
        return F.grid_sample(repeated.float(), grid, align_corners=False)


def _sides(pixels: float, aspect: tuple[float, float], generator: torch.Generator | None) -> tuple[float, float]:
    ratio = math.exp(_uniform(math.log(aspect[0]), math.log(aspect[1]), generator))
    return math.sqrt(pixels / ratio), math.sqrt(pixels * ratio)


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
