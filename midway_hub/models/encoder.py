"""The encoder: timm's VisionTransformer with the position resize that the released weights were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from midway_hub._tensors import sizes_are_free
from midway_hub.config import MidwayConfig
from midway_hub.models._checks import check_size
from midway_hub.models.rope import RopeBlock, grid_places, rotation

REGISTER_STD = 1e-6
"""Of the normal that register tokens start from, as in DINOv2."""

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
            init_values=config.layer_scale,
            pos_embed="none" if config.positions == "rope" else "learn",
            block_fn=RopeBlock if config.positions == "rope" else Block,
            # Without memory, as a network is built to be loaded, there is nothing to draw; timm takes its time over it.
            weight_init="skip" if torch.get_default_device().type == "meta" else "",
        )
        self.patch_embed.img_size = None  # timm checks sizes only with it, and puts them into words that fix an export
        self.stored_grid, self.rope = config.grid_size, config.positions == "rope"
        if config.num_registers:
            self.reg_token = nn.Parameter(torch.empty(1, config.num_registers, config.embed_dim))
            nn.init.normal_(self.reg_token, std=REGISTER_STD)
        self.gradient_checkpointing = False  # set by transformers' gradient_checkpointing_enable()

    def _pos_embed(self, x: Tensor) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        if not self.rope:
            x = self.pos_drop(x + resize_position_embedding(self.pos_embed, self.stored_grid, grid))
        return x if self.reg_token is None else self.with_registers(x)

    def with_registers(self, x: Tensor) -> Tensor:
        """Put the register tokens behind the CLS token of tokens (B, 1+N, D)."""
        return torch.cat([x[:, :1], self.reg_token.expand(len(x), -1, -1), x[:, 1:]], dim=1)

    def without_registers(self, x: Tensor) -> Tensor:
        """Take the register tokens out of tokens (B, 1+R+N, D)."""
        return x if self.reg_token is None else torch.cat([x[:, :1], x[:, 1 + self.reg_token.shape[1] :]], dim=1)

    def angles(self, places: Tensor) -> Tensor:
        """Return what heads turn by at places (..., N, 2) of patches: (..., 1+R+N, width), 0 for other tokens."""
        found = rotation(places, self.blocks[0].attn.head_dim)
        others = 1 if self.reg_token is None else 1 + self.reg_token.shape[1]
        return F.pad(found, (0, 0, others, 0))

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
        patches = self.patch_embed(images)
        places = grid_places((patches.shape[1], patches.shape[2]), patches.device) if self.rope else None
        return self.through(self._pos_embed(patches), layers, places)

    def through(self, x: Tensor, layers: Sequence[int], places: Tensor | None = None) -> tuple[Tensor, ...]:
        """Send tokens through the blocks.

        Args:
            x: (B, 1+R+N, D), embedded.
            layers: As for `tokens`.
            places: (N, 2) or (B, 1, N, 2) rows and columns of the patches, for rotary positions.

        Returns:
            As `tokens`: without registers.
        """
        turned = (self.angles(places),) if self.rope and places is not None else ()
        found: dict[int, Tensor] = {}
        for index, block in enumerate(islice(self.blocks, max(layers) + 1)):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x, *turned)
            else:
                x = block(x, *turned)
            if index in layers:
                found[index] = self.without_registers(self.norm(x))
        return tuple(found[index] for index in layers)
