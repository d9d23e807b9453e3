"""The transformer of DynaMo's inverse and forward models: causal, as in GPT (Cui et al. 2024, appendix B)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

STD = 0.02


class CausalBlock(nn.Module):
    """Pre-norm: tokens attend to themselves and those before them, then an MLP.

    Args:
        dim: Width.
        heads: Attention heads.
        dropout: Share of numbers that are dropped behind attention and MLP.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, dim) to (B, L, dim)."""
        qkv = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv.unbind(0), is_causal=True).transpose(1, 2).flatten(2)
        x = x + F.dropout(self.proj(attended), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class CausalTransformer(nn.Module):
    """Linear in, learned positions, causal blocks, a last norm, linear out.

    Args:
        inputs: Width of what comes in.
        outputs: Width of what goes out.
        dim: Width in between.
        depth: Blocks.
        heads: Attention heads.
        length: Longest sequence.
        dropout: Share of numbers that are dropped in the blocks.
    """

    def __init__(
        self, inputs: int, outputs: int, *, dim: int, depth: int, heads: int, length: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embed, self.norm, self.out = nn.Linear(inputs, dim), nn.LayerNorm(dim), nn.Linear(dim, outputs)
        self.positions = nn.Parameter(torch.zeros(1, length, dim))
        self.blocks = nn.ModuleList([CausalBlock(dim, heads, dropout) for _ in range(depth)])
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                ends_residual = name.endswith((".proj", ".fc2"))
                nn.init.normal_(module.weight, std=STD / (2 * depth) ** 0.5 if ends_residual else STD)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions, std=STD)

    def forward(self, sequence: Tensor) -> Tensor:
        """Map (B, L, inputs) to (B, L, outputs); what comes out at a place depends on it and those before it."""
        x = self.embed(sequence) + self.positions[:, : sequence.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))
