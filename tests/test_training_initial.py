"""First weights other than the paper's: what they make tokens attend to, and where they are left alone."""

import pytest
import torch
from conftest import make_tiny_net
from midway_hub.training.initial import InitialSettings, attend_to_alike, initialise_encoder, sinusoids
from midway_hub.training.methods import Midway
from midway_hub.training.timeline import Timeline

LINE = Timeline(steps=10, steps_per_epoch=5, batch_size=4, visits_per_step=2)


def attention_of(block, tokens):
    """Softmax of q · k averaged over heads, (N, N), written out."""
    attention = block.attn
    query, key, _ = (tokens @ attention.qkv.weight.T.to(tokens)).chunk(3, dim=-1)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1) for part in (query, key)]
    return (heads[0] @ heads[1].mT * attention.scale).softmax(-1).mean(0)


def test_a_token_attends_to_its_like_in_the_other_frame():
    dynamics = make_tiny_net().dynamics
    width = dynamics.motion_tokens.shape[-1]
    attend_to_alike(dynamics, width**-0.5)
    tokens = torch.nn.functional.layer_norm(torch.randn(12, width, dtype=torch.double), (width,))
    tokens[6:] = tokens[:6].roll(2, dims=0)
    for level in dynamics.levels.values():
        for block in level.midway:
            across = attention_of(block, tokens)[:6, 6:]
            assert torch.equal(across.argmax(dim=1), torch.arange(6).roll(-2))


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
    query, key, _ = told.network.model.dynamics.levels["1"].midway[0].attn.qkv.weight.chunk(3)
    assert torch.equal(query, key)
    assert told.network.model.dynamics.position_embedding.any()
