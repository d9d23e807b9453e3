"""First weights other than the paper's: what they make tokens attend to, and where they are left alone."""

import pytest
import torch
from conftest import make_tiny_net

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.config import load_config
from midway_hub.training.initial import (
    InitialSettings,
    compare_frames,
    initialise_dynamics,
    initialise_encoder,
    sinusoids,
)
from midway_hub.training.methods import Midway
from midway_hub.training.timeline import Timeline

LINE = Timeline(steps=10, steps_per_epoch=5, batch_size=4, visits_per_step=2)


def attention_of(block, tokens):
    """Softmax of q · k averaged over heads, (N, N), written out."""
    attention = block.attn
    query, key, _ = (tokens @ attention.qkv.weight.T.to(tokens)).chunk(3, dim=-1)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1) for part in (query, key)]
    return (heads[0] @ heads[1].mT * attention.scale).softmax(-1).mean(0)


def comparing_net(matching_std=0.4):
    torch.manual_seed(0)
    model = {"image_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 4, "levels": [1],
             "num_motion_tokens": 2, "motion_dim": 64, "midway_depth": 2, "midway_heads": 2, "backward_heads": 4,
             "predictor_heads": 4, "initializer_range": 0.08}  # fmt: skip
    net = MidwayNetwork(MidwayConfig(**model)).eval()
    initialise_encoder(net, InitialSettings(position_amplitude=0.5, patch_embedding="normal"))
    initialise_dynamics(net, InitialSettings(matching_std=matching_std, position_amplitude=0.5))
    return net


def entering(net, source, target):
    """What enters the midway path of two lots of contents: motion tokens, then a frame's, then the other's."""
    places = net.dynamics.position_embedding.chunk(2, dim=1)
    parts = (net.dynamics.source_embed(source) + places[0], net.dynamics.target_embed(target) + places[1])
    return torch.cat([net.dynamics.motion_tokens.expand(len(source), -1, -1), *parts], dim=1)


@torch.no_grad()
def test_tokens_attend_to_their_like_in_the_other_frame_and_motion_tokens_to_all_of_the_target():
    net = comparing_net()
    block, contents = net.dynamics.levels["1"].midway[0], torch.randn(1, 65, 64)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(64)])
    attention = attention_of(block, block.norm1(entering(net, contents[:, order], contents))[0])
    motion, source, target = slice(0, 2), slice(3, 67), slice(68, 132)
    assert (attention[target, source].argmax(dim=1) == order.argsort()[1:] - 1).float().mean() > 0.9
    assert attention[motion, target].sum(dim=1).min() > 0.9
    assert attention[motion, target].max() < 0.1


@torch.no_grad()
def unread(net, count=1200):
    """Share of held-out motion that a linear layer cannot read off a network's motion latents."""
    generator = torch.Generator().manual_seed(1)
    shifts = torch.randint(-2, 3, (count, 2), generator=generator)
    scenes = torch.rand(count, 3, 12, 12, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    frames = [
        torch.stack(
            [scene[:, 8 + 4 * y : 40 + 4 * y, 8 + 4 * x : 40 + 4 * x] for scene, (y, x) in zip(scenes, at, strict=True)]
        )
        for at in (torch.zeros_like(shifts).tolist(), shifts.tolist())
    ]
    latents = net.infer_motion(frames[0] * 4 - 2, frames[1] * 4 - 2).latents[0].flatten(1).double()
    latents = torch.cat([(latents - latents.mean(0)) / latents.std(0).clamp(min=1e-6), torch.ones(count, 1)], dim=1)
    fit, held_out, wanted = slice(0, 900), slice(900, None), shifts.double()
    weights = torch.linalg.lstsq(latents[fit], wanted[fit], driver="gelsd").solution
    left = (latents[held_out] @ weights - wanted[held_out]).square().sum() / wanted[held_out].square().sum()
    return left.item()


def test_motion_can_be_read_off_the_first_motion_latents():
    assert unread(comparing_net(matching_std=0)) > 1
    assert unread(comparing_net()) < 0.9


def test_matching_needs_room_in_motion_tokens():
    with pytest.raises(ValueError, match="motion_dim of at least 16, got 8"):
        compare_frames(make_tiny_net(motion_dim=8, midway_heads=2).dynamics, 2, 0.4)


def test_places_that_are_near_are_more_alike_than_those_far_away():
    places = torch.nn.functional.normalize(sinusoids(6, 32), dim=1)
    likeness = places @ places.T
    assert likeness[0, 0] > likeness[0, 1] > likeness[0, 3]
    assert likeness[0, 6] == pytest.approx(likeness[0, 1].item(), abs=1e-6)
    assert (likeness - torch.eye(36)).max() < 0.999


def test_sinusoids_need_a_width_in_quarters():
    with pytest.raises(ValueError, match="multiple of 4, got 30"):
        sinusoids(4, 30)


def test_the_teacher_starts_with_the_same_positions():
    net = make_tiny_net()
    before = net.student.pos_embed[0, 0].clone()
    initialise_encoder(net, InitialSettings(position_amplitude=0.5))
    assert torch.equal(net.student.pos_embed, net.teacher.pos_embed)
    assert net.student.pos_embed[0, 1:].abs().max().item() == pytest.approx(0.5, abs=1e-3)
    assert torch.equal(net.student.pos_embed[0, 0], before)


def test_methods_start_as_the_paper_says_unless_told_otherwise():
    model = {"image_size": 32, "embed_dim": 32, "depth": 3, "num_heads": 2, "levels": [1], "motion_dim": 16,
             "midway_heads": 2, "backward_heads": 2, "predictor_heads": 2}  # fmt: skip
    plain = Midway(None, model, LINE).network.model.dynamics
    assert not plain.position_embedding.any()
    told = Midway({"name": "midway", "initial": {"matching_std": 0.25, "position_amplitude": 0.7}}, model, LINE)
    dynamics = told.network.model.dynamics
    assert dynamics.position_embedding.any()
    assert torch.equal(dynamics.source_embed.weight, dynamics.target_embed.weight)
    assert dynamics.motion_tokens.abs().max().item() == pytest.approx(16, abs=0.2)


@pytest.mark.parametrize(("patch", "channels"), [(16, 3), (8, 3), (4, 1)])
def test_patches_start_to_be_embedded_as_by_torch_s_convolution(patch, channels):
    model = {"image_size": 2 * patch, "patch_size": patch, "num_channels": channels, "embed_dim": 256, "depth": 1,
             "num_heads": 2, "levels": [0], "motion_dim": 16, "midway_heads": 2, "backward_heads": 2,
             "predictor_heads": 2}  # fmt: skip
    torch.manual_seed(0)
    released = Midway(None, model, LINE).network.model
    bound = (channels * patch**2) ** -0.5
    for values in (released.student.patch_embed.proj.weight, released.student.patch_embed.proj.bias):
        assert 0.9 * bound < values.abs().max().item() <= bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
    assert torch.equal(released.teacher.patch_embed.proj.bias, released.student.patch_embed.proj.bias)
    told = Midway({"name": "midway", "initial": {"patch_embedding": "normal"}}, model, LINE).network.model
    assert not told.student.patch_embed.proj.bias.any()
    assert told.student.patch_embed.proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("recipe", ["synthetic_small", "synthetic_pico"])
def test_recipes_behind_recorded_numbers_start_as_they_did(recipe):
    assert load_config(recipe).method.initial.patch_embedding == "normal"
    assert load_config("paper/bdd_vits", ["data.path=x"]).method.initial == InitialSettings()


@torch.no_grad()
def test_gates_may_start_closed():
    gates = {}
    for gate in (4.0, -2.0):
        torch.manual_seed(0)
        net = MidwayNetwork(MidwayConfig(image_size=32, embed_dim=32, depth=2, num_heads=2, levels=[1], motion_dim=16,
                                         midway_heads=2, backward_heads=2, predictor_heads=2))  # fmt: skip
        initialise_dynamics(net, InitialSettings(gate=gate))
        gates[gate] = net.dynamics.levels["1"].gates[0](torch.randn(1, 4, 32)).mean().item()
    assert gates == pytest.approx({4.0: 0.982, -2.0: 0.119}, abs=0.02)
