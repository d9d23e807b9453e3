import pytest
import torch
from conftest import make_tiny_net

from midway_hub.analysis.attention import cls_attention


def frames(*leading, dtype=torch.float32):
    return torch.randn(*leading, 3, 48, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


def by_hand(net, images, block, network):
    """softmax(q·k / √d) of the CLS token over all tokens, from the tokens that enter a block, written out."""
    encoder = net.encoder(network)
    tokens = encoder._pos_embed(encoder.patch_embed(images))
    for earlier in encoder.blocks[:block]:
        tokens = earlier(tokens)
    layer = encoder.blocks[block]
    normalised = layer.norm1(tokens)
    width, heads = tokens.shape[-1], net.config.num_heads
    weight, bias = layer.attn.qkv.weight, layer.attn.qkv.bias
    maps = []
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        query = normalised[:, :1] @ weight[:width][part].T + bias[:width][part]
        key = normalised @ weight[width : 2 * width][part].T + bias[width : 2 * width][part]
        scores = torch.exp(query @ key.transpose(1, 2) / (width / heads) ** 0.5)[:, 0]
        maps.append(scores / scores.sum(dim=1, keepdim=True))
    return torch.stack(maps, dim=1)


@pytest.mark.parametrize(("block", "network"), [(-1, "teacher"), (4, "student"), (0, "teacher")])
def test_attention_is_softmax_of_queries_and_keys(block, network):
    net, images = make_tiny_net().double(), frames(2, dtype=torch.double)
    found = cls_attention(net, images, block=block, network=network)
    expected = by_hand(net, images, block % 12, network)
    assert found.shape == (2, 4, 3, 4)
    torch.testing.assert_close(found, expected[:, :, 1:].unflatten(2, (3, 4)), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sum((2, 3)) + expected[:, :, 0], torch.ones(2, 4).double())


def test_attention_does_not_depend_on_the_kernel():
    net, images = make_tiny_net().double(), frames(1, dtype=torch.double)
    fused = cls_attention(net, images)
    for block in net.teacher.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(cls_attention(net, images), fused, rtol=0, atol=1e-12)


def test_clips_keep_their_axes():
    net, clips = make_tiny_net(), frames(2, 3)
    found = cls_attention(net, clips)
    assert found.shape == (2, 3, 4, 3, 4)
    torch.testing.assert_close(found[1, 2], cls_attention(net, clips[1, 2:])[0])


def test_looking_leaves_nothing_behind_even_when_it_fails():
    net = make_tiny_net()
    cls_attention(net, frames(1))
    with pytest.raises(ValueError, match="multiple"):
        cls_attention(net, torch.zeros(1, 3, 50, 64))
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_block_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"layers \[12\] do not exist: the encoder has blocks 0 to 11"):
        cls_attention(make_tiny_net(), frames(1), block=12)
