"""The encoder: timm's VisionTransformer with the position resize that the released weights were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from midway_hub._tensors import sizes_are_free
from midway_hub.config import MidwayConfig
from midway_hub.models._checks import check_size

A = -0.75
"""Of torch's bicubic kernel."""


def resize_position_embedding(embedding: Tensor, stored: int, grid: tuple[int, int]) -> Tensor:
    """Resize square position embeddings to another patch grid by DINO's rule.

    Bicubic without antialiasing; the sampling scale is (h+0.1)/stored rather than the ratio of the sizes, as in DINO.
    Written as a matrix per axis that follows from h and w, so that a network that was traced or exported with free
    sizes resizes to the size that comes in.

    Args:
        embedding: (K, 1 + stored², dim), the CLS entry first; it is kept as it is.
        stored: Side of the stored grid.
        grid: (h, w) wanted.

    Returns:
        (K, 1 + h·w, dim), in the dtype of `embedding`.
    """
    if not sizes_are_free() and grid == (stored, stored):
        return embedding
    square = embedding[:, 1:].unflatten(1, (stored, stored))
    square = square.to(torch.promote_types(embedding.dtype, torch.float32))
    rows, columns = bicubic_weights(_places(stored, grid, square), stored).split([*grid])
    with _full_precision(embedding.device):
        tall = (rows @ square.flatten(2)).unflatten(2, (stored, -1))
        resized = (columns @ tall).flatten(1, 2)
    return torch.cat([embedding[:, :1], resized.to(embedding.dtype)], dim=1)


def bicubic_weights(places: Tensor, stored: int) -> Tensor:
    """Return the matrix (n, stored) that samples at n places as torch's bicubic does: a = -0.75, clamped border.

    Args:
        places: (n,), in samples: the first one's centre is 0.
        stored: Number of samples that there are.
    """
    taps = places.floor()[:, None] + torch.arange(-1, 3, dtype=places.dtype, device=places.device)
    away = (places[:, None] - taps).abs()
    near = ((A + 2) * away - (A + 3)) * away * away + 1
    far = (((away - 5) * away + 8) * away - 4) * A
    weights = torch.where(away <= 1, near, far)
    samples = torch.arange(stored, dtype=places.dtype, device=places.device)
    return ((taps.clamp(0, stored - 1)[:, :, None] == samples) * weights[:, :, None]).sum(dim=1)


def _places(stored: int, grid: tuple[int, int], like: Tensor) -> Tensor:
    """Return where rows, then columns are sampled, (h + w,); on the samples themselves if it is the stored grid."""
    steps: Sequence[float | Tensor] = [stored / (side + 0.1) for side in grid]
    if sizes_are_free():
        sides = [torch.scalar_tensor(side, dtype=like.dtype, device=like.device) for side in grid]
        as_stored = (sides[0] == stored) & (sides[1] == stored)
        steps = [torch.where(as_stored, 1.0, stored / (side + 0.1)) for side in sides]
    counts = [torch.arange(side, dtype=like.dtype, device=like.device) for side in grid]
    return torch.cat([(count + 0.5) * step for count, step in zip(counts, steps, strict=True)]) - 0.5


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep autocast from rounding positions, as it does in matrix products."""
    enabled = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


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
        self.patch_embed.img_size = None  # timm checks sizes only with it, and puts them into words that fix an export
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

        Raises:
            ValueError: H or W is no multiple of the patch size.
        """
        if not torch.jit.is_tracing():
            check_size(images.shape[-2], images.shape[-1], name="images", multiple=self.patch_embed.patch_size[0])
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
