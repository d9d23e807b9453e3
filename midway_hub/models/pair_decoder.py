"""A decoder of one frame given another: what CroCo v2 completes frames with, and what its flow is read off."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from midway_hub.config import MidwayConfig
from midway_hub.heads import PairDecoderConfig
from midway_hub.models._heads import Head
from midway_hub.models.rope import RopeAttention, grid_places, rotated, rotation

EPSILON = 1e-6
THIRDS = (1, 2, 3)


class CrossDecoderBlock(nn.Module):
    """Tokens attend to each other, then to those of the other frame; both attentions turn by place (CroCo v2, fig. 2).

    Args:
        dim: Width.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3, self.norm_memory = (nn.LayerNorm(dim, eps=EPSILON) for _ in range(4))
        self.attn = RopeAttention(dim, heads, qkv_bias=True)
        self.query, self.key, self.value, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, memory: Tensor, angles: Tensor, memory_angles: Tensor) -> Tensor:
        """Map tokens (B, L, dim) to (B, L, dim), given the other frame's (B, L', dim) and where both are."""
        x = x + self.attn(self.norm1(x), angles)
        x = x + self._cross(self.norm2(x), self.norm_memory(memory), angles, memory_angles)
        return x + self.mlp(self.norm3(x))

    def _cross(self, x: Tensor, memory: Tensor, angles: Tensor, memory_angles: Tensor) -> Tensor:
        query, key, value = (
            made.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for made in (self.query(x), self.key(memory), self.value(memory))
        )
        found = F.scaled_dot_product_attention(rotated(query, angles), rotated(key, memory_angles), value)
        return self.proj(found.transpose(1, 2).flatten(2))


class PairDecoder(Head):
    """Fills in the patches of one frame that are not seen, from those that are and from the other frame.

    Args:
        settings: Sizes.
        network: Architecture that it is part of.
    """

    def __init__(self, settings: PairDecoderConfig, network: MidwayConfig) -> None:
        super().__init__()
        self.config, self.head_width = settings, settings.dim // settings.heads
        self.embed = nn.Linear(network.embed_dim, settings.dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, settings.dim))
        self.blocks = nn.ModuleList([CrossDecoderBlock(settings.dim, settings.heads) for _ in range(settings.depth)])
        self.norm = nn.LayerNorm(settings.dim, eps=EPSILON)
        self.pixels = nn.Linear(settings.dim, network.num_channels * network.patch_size**2)
        self.initialise()

    def initialise_module(self, module: nn.Module) -> None:
        """Draw weights by Xavier's rule, without biases; the mask token from a narrow normal (CroCo v2)."""
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif module is self:
            nn.init.normal_(self.mask_token, std=0.02)
        else:
            super().initialise_module(module)

    def forward(self, seen: Tensor, other: Tensor, keep: Tensor | None, grid: tuple[int, int]) -> list[Tensor]:
        """Decode.

        Args:
            seen: (B, K, D) encoded patches of the frame.
            other: (B, N, D) encoded patches of the other frame.
            keep: (B, K) which patches of the frame are seen; None: all of them, in order.
            grid: (h, w) patches of both frames.

        Returns:
            Tokens (B, N, dim) after every block, before the last norm.
        """
        seen, memory = self.embed(seen), self.embed(other)
        if keep is None:
            x = seen
        else:
            hidden = self.mask_token.to(seen.dtype).expand(len(seen), other.shape[1], -1)
            x = hidden.scatter(1, keep[..., None].expand(-1, -1, seen.shape[2]), seen)
        angles = rotation(grid_places(grid, x.device), self.head_width)
        found = []
        for block in self.blocks:
            x = block(x, memory, angles, angles)
            found.append(x)
        return found

    def hooks(self) -> tuple[int, ...]:
        """Return the blocks that flow is read off: at a third, two thirds and the end (CroCo v2, section 4)."""
        return tuple(max(0, round(len(self.blocks) * third / 3) - 1) for third in THIRDS)
