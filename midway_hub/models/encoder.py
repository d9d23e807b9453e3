"""The encoder: timm's VisionTransformer with the position resize that the released weights were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from midway_hub.config import MidwayConfig


def resize_position_embedding(embedding: Tensor, stored: int, grid: tuple[int, int]) -> Tensor:
    """Resize a square position embedding to another patch grid by DINO's rule.

    Bicubic without antialiasing; the sampling scale is (h+0.1)/stored rather than the ratio of the sizes, as in DINO.

    Args:
        embedding: (1, 1 + stored², dim), the CLS entry first; it is kept as it is.
        stored: Side of the stored grid.
        grid: (h, w) wanted.

    Returns:
        (1, 1 + h·w, dim), in the dtype of `embedding`.
    """
    if grid == (stored, stored):
        return embedding
    square = embedding[:, 1:].unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
    scale = tuple((side + 0.1) / stored for side in grid)
    resized = F.interpolate(square.float(), scale_factor=scale, mode="bicubic").to(embedding.dtype)
    return torch.cat([embedding[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class MidwayEncoder(VisionTransformer):
    """ViT whose tokens after any block can be read, each through the final LayerNorm (paper section 3.1)."""

    def __init__(self, config: MidwayConfig, *, drop_path_rate: float = 0.0) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            in_chans=config.num_channels,
            num_classes=0,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=drop_path_rate,
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            # Without memory, as a network is built to be loaded, there is nothing to draw; timm takes its time over it.
            weight_init="skip" if torch.get_default_device().type == "meta" else "",
        )
        self.stored_grid = config.grid_size
        self.gradient_checkpointing = False  # set by transformers' gradient_checkpointing_enable()

    def _pos_embed(self, x: Tensor) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(x + resize_position_embedding(self.pos_embed, self.stored_grid, grid))

    def tokens(self, images: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Encode images and return the tokens after each of `layers`.

        Args:
            images: (B, 3, H, W), normalised; H and W multiples of the patch size.
            layers: Block indices from 0, in any order.

        Returns:
            One (B, 1+N, D) per entry of `layers`, CLS first, through the final norm.
        """
        x = self._pos_embed(self.patch_embed(images))
        found: dict[int, Tensor] = {}
        for index, block in enumerate(islice(self.blocks, max(layers) + 1)):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x)
            else:
                x = block(x)
            if index in layers:
                found[index] = self.norm(x)
        return tuple(found[index] for index in layers)
