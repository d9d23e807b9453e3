"""Rotary positions in two dimensions (Su et al. 2021; as in CroCo v2, section 3.2): queries and keys turn by place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor

BASE = 100.0


def rotation(places: Tensor, width: int, base: float = BASE) -> Tensor:
    """Return the angles that heads turn by at some places.

    Args:
        places: (..., L, 2) rows and columns, in patches.
        width: Numbers of a head, a multiple of 4: the first half turns by rows, the second by columns.
        base: What wavelengths grow by over a half.

    Returns:
        (..., L, width) float32 angles; of each half, number i and number i + width / 4 turn together by
        base^(-4i / width) per patch.

    Raises:
        ValueError: The width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"rotary positions need heads of a multiple of 4 numbers, got {width}")
    quarter = width // 4
    steps = base ** -(torch.arange(quarter, device=places.device) / quarter)
    angles = places.float()[..., None] * steps  # (..., L, 2, quarter)
    return angles.repeat(*[1] * (angles.ndim - 1), 2).flatten(-2)


def rotated(heads: Tensor, angles: Tensor) -> Tensor:
    """Turn heads (B, heads, L, width) by angles (L, width) or (B, 1, L, width)."""
    first, second = heads.unflatten(-1, (2, 2, -1)).unbind(-2)
    turned = torch.stack([-second, first], dim=-2).flatten(-3)
    return (heads * angles.cos() + turned * angles.sin()).to(heads.dtype)


def grid_places(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return row and column (h·w, 2) of the patches of a grid, row by row."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    return torch.stack([rows.flatten(), columns.flatten()], dim=1)


class RopeAttention(Attention):
    """timm's attention whose queries and keys turn by place."""

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:  # type: ignore[override]
        """Map tokens (B, L, dim) to (B, L, dim), given angles as for `rotated`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class RopeBlock(Block):
    """timm's block with `RopeAttention`."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, qkv_bias=qkv_bias, **kwargs)
        self.attn = RopeAttention(dim, num_heads, qkv_bias=qkv_bias)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:  # type: ignore[override]
        """Map tokens (B, L, dim) to (B, L, dim), given angles as for `rotated`."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), angles)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
