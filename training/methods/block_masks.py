"""Masks of blocks, as in BEiT and DINOv2: which patches of which crops the student does not see."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRIES = 10
LEAST, ASPECT = 4, 0.3
"""Fewest patches of a block, and its least height over width; the greatest is the inverse."""


def draw_block_masks(
    crops: int, grid: tuple[int, int], *, share: float, ratios: tuple[float, float], generator: torch.Generator | None
) -> Tensor:
    """Draw masks for some of the crops.

    Args:
        crops: Crops of the batch.
        grid: (h, w) patches of a crop.
        share: Share of the crops that are masked, rounded down.
        ratios: Least and most share of the patches that are hidden: an equal slice of this range is for each masked
            crop, and a ratio is drawn within it.
        generator: Where the numbers come from; None: torch's own.

    Returns:
        (crops, h·w) bool on the CPU, in random order.
    """
    masked = int(crops * share)
    edges = torch.linspace(*ratios, masked + 1).tolist()
    masks = torch.zeros(crops, grid[0] * grid[1], dtype=torch.bool)
    for number in range(masked):
        ratio = _uniform(edges[number], edges[number + 1], generator)
        masks[number] = _blocks(grid, int(grid[0] * grid[1] * ratio), generator).flatten()
    return masks[torch.randperm(crops, generator=generator)]


def _blocks(grid: tuple[int, int], wanted: int, generator: torch.Generator | None) -> Tensor:
    """Hide at most `wanted` patches of a grid by blocks, until ten blocks in a row do not fit."""
    mask = torch.zeros(grid, dtype=torch.bool)
    hidden = 0
    while hidden < wanted:
        added = _one_block(mask, wanted - hidden, generator)
        if not added:
            break
        hidden += added
    return mask


def _one_block(mask: Tensor, left: int, generator: torch.Generator | None) -> int:
    height, width = mask.shape
    for _ in range(TRIES):
        area = _uniform(min(LEAST, left), left, generator)
        aspect = math.exp(_uniform(math.log(ASPECT), -math.log(ASPECT), generator))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < h <= height and 0 < w <= width):
            continue
        top, side = _whole(height - h, generator), _whole(width - w, generator)
        block = mask[top : top + h, side : side + w]
        added = int((~block).sum())
        if 0 < added <= left:
            block[:] = True
            return added
    return 0


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _whole(most: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(most + 1, (), generator=generator).item())
