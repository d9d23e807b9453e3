"""Transformer blocks of the dynamics (paper section 3): pre-norm, no qkv bias, LayerNorm eps 1e-5."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

DynamicsNorm = partial(nn.LayerNorm, eps=1e-5)


class SelfAttentionBlock(Block):
    """timm's pre-norm block without qkv bias, whose attention residual can be gated (forward predictor)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__(dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=False, norm_layer=DynamicsNorm)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Map tokens (B, L, dim) to (B, L, dim); `gate`, of the same shape, scales the attention stage's residual."""
        x = (x if gate is None else gate * x) + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    """Attention of queries (B, L, dim) to a memory (B, L', dim), with separate projections for q, k and v."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused_attn = True
        self.projq = nn.Linear(dim, dim, bias=False)
        self.projk = nn.Linear(dim, dim, bias=False)
        self.projv = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (
            tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for tokens in (self.projq(x), self.projk(memory), self.projv(memory))
        )
        if self.fused_attn:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            attended = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
        return self.proj(attended.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Backward layer (paper section 3.2): a frame's tokens attend to each other, then to those of the level above."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = DynamicsNorm(dim)
        self.attn = Attention(dim, num_heads=num_heads, qkv_bias=False)
        self.norm2 = DynamicsNorm(dim)
        self.norm_y = DynamicsNorm(dim)
        self.cross_attn = CrossAttention(dim, num_heads)
        self.norm3 = DynamicsNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, lateral: Tensor, higher: Tensor) -> Tensor:
        """Refine `lateral` (B, L, dim) by `higher` (B, L, dim), the backward features of the level above."""
        x = lateral + self.attn(self.norm1(lateral))
        x = x + self.cross_attn(self.norm2(x), self.norm_y(higher))
        return x + self.mlp(self.norm3(x))


class GatingUnit(nn.Module):
    """How much of a token's residual a predictor block keeps: sigmoid(MLP(LayerNorm(x)) + 4), near 1 at the start."""

    OPEN = 4.0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = DynamicsNorm(dim)
        self.mlp = Mlp(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, dim) to gates (B, L, dim) between 0 and 1."""
        return torch.sigmoid(self.mlp(self.norm(x)) + self.OPEN)
