"""The released layout, converted and loaded, gives the reference outputs that were stored for named weights."""

import numpy as np
import pytest
import torch
from authors_checkpoint import build_authors_checkpoint, named_input

from midway_hub import MidwayNetwork
from midway_hub.convert import convert_checkpoint

TOKENS = [0, 1, 15, 97, 100, 196]


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "midway_vits_golden.npz")


@pytest.fixture(scope="module")
def net(golden, tmp_path_factory):
    """ViT-S through the whole way: .pth with an args object of an unknown class, convert, strict load."""
    folder = tmp_path_factory.mktemp("golden")
    build_authors_checkpoint(folder / "authors.pth", arch="vit_small", args="omegaconf-like")
    convert_checkpoint(folder / "authors.pth", folder / "converted")
    (folder / "authors.pth").unlink()
    return MidwayNetwork.from_pretrained(folder / "converted")


@pytest.fixture(scope="module")
def frames():
    return [named_input(f"frame_{name}", (2, 3, 224, 224)) for name in "ab"]


@pytest.fixture(scope="module")
def motion(net, frames):
    a, b = frames
    with torch.no_grad():
        return net.infer_motion(torch.cat([a, b]), torch.cat([b, a]))


def assert_golden(golden, name, value):
    torch.testing.assert_close(value.double(), torch.from_numpy(golden[name]).double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", ["student", "teacher"])
@torch.no_grad()
def test_features_of_every_tapped_block(golden, net, frames, network):
    features = net.encode(frames[0], layers=[2, 5, 8, 11], output_format="tokens", network=network)
    for block, tokens in zip([2, 5, 8, 11], features.layers, strict=True):
        assert_golden(golden, f"vit_small.{network}.feat{block}", tokens[:, TOKENS])
    assert_golden(golden, f"vit_small.{network}.cls", features.cls)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (288, 512)])
@torch.no_grad()
def test_features_at_other_sizes(golden, net, height, width):
    images = named_input(f"img({height}, {width})", (1, 3, height, width))
    features = net.encode(images, output_format="tokens")
    assert_golden(golden, f"vit_small.teacher.{height}x{width}.cls", features.cls)
    assert_golden(golden, f"vit_small.teacher.{height}x{width}.feat11", features.last[:, [0, 1, 7, -1]])


@pytest.mark.parametrize(("golden_level", "block"), [(0, 2), (1, 5), (2, 8)])
def test_motion_of_every_level(golden, motion, golden_level, block):
    index = motion.levels.index(block)
    assert_golden(golden, f"vit_small.lvl{golden_level}.motion", motion.latents[index])
    assert_golden(golden, f"vit_small.lvl{golden_level}.v_src", motion.source[index][:, TOKENS])
    assert_golden(golden, f"vit_small.lvl{golden_level}.v_tgt", motion.target[index][:, TOKENS])
    assert_golden(golden, f"vit_small.lvl{golden_level}.pred", motion.predicted[index][:, TOKENS])


@torch.no_grad()
def test_the_dense_prediction_loss(golden, net, frames, motion):
    targets = net.encode(torch.cat(frames[::-1]), layers=[2, 5, 8], output_format="tokens").layers
    losses = [
        (2 - 2 * torch.cosine_similarity(predicted, target, dim=-1)).mean()
        for predicted, target in zip(motion.predicted[::-1], targets, strict=True)
    ]
    assert_golden(golden, "vit_small.motion_losses", torch.stack(losses))
    assert_golden(golden, "vit_small.motion_loss", sum(losses).reshape(1))


@pytest.mark.slow
@pytest.mark.parametrize("motion_dim", [192, 384])
@torch.no_grad()
def test_vit_b_converts_and_runs_with_either_motion_width(tmp_path, motion_dim):
    build_authors_checkpoint(
        tmp_path / "authors.pth",
        arch="vit_base",
        motion_dim=motion_dim,
        tensor=lambda name, shape: 0.02 * torch.randn(shape),
    )
    convert_checkpoint(tmp_path / "authors.pth", tmp_path / "converted")
    net = MidwayNetwork.from_pretrained(tmp_path / "converted")
    assert (net.config.embed_dim, net.config.num_heads, net.config.motion_dim) == (768, 12, motion_dim)
    motion = net.infer_motion(torch.randn(1, 3, 64, 96), torch.randn(1, 3, 64, 96))
    assert motion.latents[2].shape == (1, 10, motion_dim)
    assert motion.predicted[2].shape == (1, 25, 768)
    assert all(torch.isfinite(tokens).all() for tokens in motion.predicted)
