"""What the CLS token of a frame looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.models._checks import normalise_layers
from midway_hub.models.network import MidwayNetwork, Network
from midway_hub.models.rope import rotated


@torch.no_grad()
def cls_attention(net: MidwayNetwork, images: Tensor, *, block: int = -1, network: Network = "teacher") -> Tensor:
    """Return how much of the CLS token's attention each patch gets, head by head.

    The weights softmax(q·k / √d) are computed from the block's queries and keys, whatever kernel the network itself
    uses. They sum to 1 over the patches, registers and the CLS token itself, whose shares are left out.

    Args:
        net: Any network.
        images: (B, 3, H, W) or clips (B, T, 3, H, W), normalised; H and W multiples of the patch size.
        block: Encoder block, from 0; negatives count from the last.
        network: `"teacher"` or `"student"`.

    Returns:
        (B[, T], heads, h, w), between 0 and 1.

    Raises:
        TypeError: `images` is not a tensor.
        ValueError: As `MidwayNetwork.encode`; there is no such block, or its attention is not finite.
    """
    (index,) = normalise_layers([block], net.config.depth)
    encoder = net.encoder(network)
    attention = encoder.blocks[index].attn
    entered: list[tuple[Tensor, ...]] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: entered.append(inputs))
    try:
        grid = net.encode(images, network=network).grid
    finally:
        handle.remove()
    tokens, *angles = entered[0]
    qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1))
    queries, keys, _ = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, 1+R+N, D / heads)
    if angles:
        queries, keys = rotated(queries, angles[0]), rotated(keys, angles[0])
    weights = (queries[:, :, :1] * attention.scale @ keys.mT).softmax(dim=-1)
    need_finite(weights, "the attention")
    return (
        encoder.without_registers(weights[:, :, 0].mT).mT[..., 1:].unflatten(-1, grid).unflatten(0, images.shape[:-3])
    )
