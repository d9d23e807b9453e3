"""The correlation flow head: its pieces against references by hand, and a network that carries it."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.analysis.gates import without_gates
from midway_hub.heads import CorrelationHeadConfig, FlowHeadConfig
from midway_hub.models.correlation import estimation, volume
from midway_hub.models.correlation.estimation import best_explained, carried_on, encoder_size
from midway_hub.models.correlation.head import global_matching, unit
from midway_hub.models.correlation.sampling import places, resize_flow, upsample_convex, warp
from midway_hub.models.correlation.volume import Correlations, local_correlation, pooled
from midway_hub.models.occlusion import occluded

HEAD = {
    "kind": "correlation", "pyramid_dims": [8, 12, 16], "depth": 1, "match_dim": 16, "hidden_dim": 8, "context_dim": 8,
    "motion_dim": 8, "levels": 3, "radius": 2, "updates": 2, "refinements": 2, "refine_dim": 8, "refine_radius": 1,
}  # fmt: skip
SMALL = {
    "image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "levels": [0], "motion_dim": 8,
    "num_motion_tokens": 2, "midway_depth": 1, "midway_heads": 2, "backward_heads": 2, "predictor_depth": 1,
    "predictor_heads": 2, "target_network": "shared", "initializer_range": 0.2,
}  # fmt: skip


def make_net(head=(), seed=0, **changes):
    torch.manual_seed(seed)
    return MidwayNetwork(MidwayConfig(**{**SMALL, **changes, "flow_head": {**HEAD, **dict(head)}})).eval()


@pytest.fixture(scope="module")
def net():
    return make_net()


def frames(height=48, width=72, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 3, height, width, generator=generator)


def looked_up_by_hand(source, target, points, levels, radius):
    """The same in float64, cell by cell: correlate with the mean features of squares, bilinear, zeros outside."""
    _, _, height, width = source.shape
    found = []
    for level in range(levels):
        features = target.double()
        for _ in range(level):
            square = tuple(min(2, side) for side in features.shape[-2:])
            features = F.avg_pool2d(features, square, ceil_mode=True, count_include_pad=False)
        rows, columns = features.shape[-2:]
        out = torch.zeros((2 * radius + 1) ** 2, height, width, dtype=torch.float64)
        for y, x in itertools.product(range(height), range(width)):
            scores = torch.einsum("c,chw->hw", source[0, :, y, x].double(), features[0])
            centre = (points[0, :, y, x].double() + 0.5) / 2**level - 0.5
            window = itertools.product(range(-radius, radius + 1), range(-radius, radius + 1))
            for index, (down, right) in enumerate(window):
                px, py = float(centre[0]) + right, float(centre[1]) + down
                x0, y0 = int(np.floor(px)), int(np.floor(py))
                for cy, cx in itertools.product((y0, y0 + 1), (x0, x0 + 1)):
                    if 0 <= cy < rows and 0 <= cx < columns:
                        out[index, y, x] += (1 - abs(py - cy)) * (1 - abs(px - cx)) * scores[cy, cx]
        found.append(out)
    return torch.cat(found)[None]


@pytest.mark.parametrize("size", [(5, 7), (4, 4), (1, 6), (3, 1)])
@pytest.mark.parametrize("kept", [2**26, 0])
def test_correlations_are_those_of_a_reference_kept_or_on_demand(size, kept, monkeypatch):
    monkeypatch.setattr(volume, "LARGEST_VOLUME", kept)
    monkeypatch.setattr(volume, "GATHERED", 500)  # several portions
    torch.manual_seed(0)
    source, target = torch.randn(2, 1, 6, *size)
    points = places(source) + 3 * torch.randn(1, 2, *size)
    found = Correlations(source, target, levels=3, radius=1)(points)
    torch.testing.assert_close(found.double(), looked_up_by_hand(source, target, points, 3, 1), rtol=1e-4, atol=1e-4)


def test_both_kinds_of_levels_serve_batches_and_gradients(monkeypatch):
    torch.manual_seed(0)
    source, target = (maps.requires_grad_() for maps in torch.randn(2, 3, 6, 5, 4))
    points = places(source) + torch.randn(3, 2, 5, 4)
    gradients = []
    for kept in (2**26, 0):
        monkeypatch.setattr(volume, "LARGEST_VOLUME", kept)
        found = Correlations(source, target, levels=2, radius=1)(points)
        gradients.append((found, *torch.autograd.grad(found.square().sum(), (source, target))))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_pooling_means_over_whole_squares_and_what_is_left_of_them():
    maps = torch.arange(15.0).view(1, 1, 3, 5)
    _, half, quarter = pooled(maps, 3)
    assert half.shape == (1, 1, 2, 3)
    assert half[0, 0, 0, 0] == (0 + 1 + 5 + 6) / 4
    assert half[0, 0, 0, 2] == (4 + 9) / 2
    assert half[0, 0, 1, 2] == 14
    assert quarter.shape == (1, 1, 1, 2)


def test_local_correlation_is_the_scaled_product_with_shifted_cells():
    source, target = torch.randn(2, 1, 9, 4, 5)
    found = local_correlation(source, target, 1)
    assert found.shape == (1, 9, 4, 5)
    expected = (source[0, :, 2, 3] * target[0, :, 1, 4]).sum() / 3
    torch.testing.assert_close(found[0, 2, 2, 3], expected)  # one up, one to the right
    assert found[0, 0, 0, 0] == 0  # outside


def test_warping_fetches_what_flow_points_at():
    maps = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1.5, 1
    warped = warp(maps, flow)
    assert warped[0, 0, 1, 2] == (13 + 14) / 2
    assert warped[0, 0, 3, 0] == 0
    assert warp(maps, flow, outside="border")[0, 0, 3, 0] == 16.5


def test_upsampling_keeps_constant_flow_and_picks_the_cell_that_weights_name():
    flow = torch.full((1, 2, 3, 4), 1.25)
    weights = torch.randn(1, 9 * 4, 3, 4)
    torch.testing.assert_close(upsample_convex(flow, weights, 2), torch.full((1, 2, 6, 8), 2.5))
    flow = torch.randn(1, 2, 3, 4)
    weights = torch.full((1, 9, 2, 2, 3, 4), -50.0)
    weights[:, 5] = 50  # the right neighbour
    fine = upsample_convex(flow, weights.flatten(1, 3), 2)
    torch.testing.assert_close(fine[..., 2:4, 2:4], (2 * flow[..., 1:2, 2:3]).expand(1, 2, 2, 2))
    torch.testing.assert_close(fine[..., 0, 7], 2 * flow[..., 0, 3])  # its edge is repeated


def test_resized_flow_counts_in_the_new_cells():
    flow = torch.ones(1, 2, 4, 6)
    resized = resize_flow(flow, (8, 3))
    torch.testing.assert_close(resized[:, 0], torch.full((1, 8, 3), 0.5))
    torch.testing.assert_close(resized[:, 1], torch.full((1, 8, 3), 2.0))


def test_global_matching_finds_a_shift_of_distinct_features():
    torch.manual_seed(0)
    features = unit(F.interpolate(torch.randn(1, 64, 8, 8), scale_factor=2, mode="nearest"))
    flow = global_matching(20 * features, torch.roll(features, (2, 4), (2, 3)))
    torch.testing.assert_close(flow[0, :, 2:-4, :-6].mean((1, 2)), torch.tensor([4.0, 2.0]), atol=0.1, rtol=0)


def test_what_is_hidden_and_what_leaves_is_occluded():
    # A square of 10 pixels moves 6 to the right over still ground: 6 columns to the right of it disappear.
    flow, backward = torch.zeros(2, 1, 2, 40, 40)
    flow[0, 0, 10:20, 10:20] = 6
    backward[0, 0, 10:20, 16:26] = -6
    hidden = occluded(flow, backward)[0]
    expected = torch.zeros(40, 40, dtype=torch.bool)
    expected[10:20, 20:26] = True
    assert torch.equal(hidden, expected)
    leaving = occluded(torch.full((1, 2, 8, 8), 3.0), torch.full((1, 2, 8, 8), -3.0))[0]
    assert not leaving[:5, :5].any()
    assert leaving[5:].all()
    assert leaving[:, 5:].all()


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (64, 64), (70, 93)])
def test_frames_of_any_size_give_flow_of_their_size(net, size):
    with torch.no_grad():
        found = net.flow(*frames(*size), both=True)
    assert found.flow.shape == found.backward.shape == (1, 2, *size)
    assert found.uncertainty.shape == found.occluded.shape == found.backward_occluded.shape == (1, *size)
    least, largest = net.flow_head.config.scale_bounds
    assert (found.uncertainty.exp() >= least - 1e-4).all()
    assert (found.uncertainty.exp() <= largest + 1e-4).all()


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ({"dynamics": False}, {}),
        ({"dynamics": False}, {"dynamics": False}),
        ({"first": "matching"}, {}),
        ({"encoder_side": 24}, {}),
        ({}, {"patch_size": 16}),
        ({}, {"target_network": "ema"}),
        ({"depth": 0, "refinements": 1, "levels": 1}, {}),
    ],
)
def test_variants_estimate_flow(head, changes):
    net = make_net(head, **changes)
    with torch.no_grad():
        assert net.flow(*frames()).flow.isfinite().all()
    assert ("context_motion.weight" in dict(net.flow_head.named_parameters())) == head.get("dynamics", True)


def test_the_encoder_sees_frames_at_its_own_size(net):
    assert encoder_size((480, 640), 96, 8) == (96, 128)
    assert encoder_size((64, 64), 96, 8) == (64, 64)
    assert encoder_size((70, 93), None, 16) == (64, 96)
    small, seen = make_net({"encoder_side": 24}), []
    small.student.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    with torch.no_grad():
        small.flow(*frames(64, 96))
    assert seen == [(24, 32)] * 2 or seen == [(24, 40)] * 2  # 36 lies between two multiples


def test_more_updates_go_on_from_fewer(net):
    source, target = frames()
    with torch.no_grad():
        one, _, _ = net.flow_sequence(source, target, updates=1)
        three, motion, tokens = net.flow_sequence(source, target, updates=3)
    assert [len(one.coarse), len(three.coarse)] == [1, 3]
    assert len(one.fine) == 1 + HEAD["refinements"]
    torch.testing.assert_close(three.coarse[0], one.coarse[0])
    assert motion.latents[0].shape == (1, 2, 8)
    assert tokens[1].shape == (1, 1 + 6 * 9, 16)
    assert not torch.equal(net.flow(source, target, updates=8).flow, net.flow(source, target).flow)


def test_flow_back_is_that_of_swapped_frames(net):
    source, target = frames()
    with torch.no_grad():
        found, swapped = net.flow(source, target, both=True), net.flow(target, source, both=True)
    torch.testing.assert_close(found.backward, swapped.flow)
    assert torch.equal(found.occluded, occluded(found.flow, found.backward))
    assert torch.equal(found.backward_occluded, swapped.occluded)


def test_updates_start_from_what_is_given(net):
    source, target = frames()
    with torch.no_grad():
        sequence, _, _ = net.flow_sequence(source, target, updates=1, initial=torch.full((1, 2, 48, 72), 16.0))
        still, _, _ = net.flow_sequence(source, target, updates=1)
    assert (sequence.coarse[0] - still.coarse[0]).mean() > 1  # 16 pixels are 2 cells


@pytest.mark.parametrize("target_network", ["shared", "ema"])
@pytest.mark.parametrize("both", [False, True])
def test_the_flow_of_a_clip_is_that_of_its_pairs(target_network, both):
    net, clip = make_net(target_network=target_network), list(frames(count=4))
    with torch.no_grad():
        pairs = [net.flow(one, other, both=both) for one, other in itertools.pairwise(clip)]
    found = list(net.flow_of_clip(clip, both=both, warm_start=False))
    assert len(found) == 3
    for one, other in zip(found, pairs, strict=True):
        torch.testing.assert_close(one.flow, other.flow)
        if both:
            torch.testing.assert_close(one.backward, other.backward)


def test_a_clip_starts_from_the_flow_before_and_encodes_each_frame_once(net):
    clip, seen = list(frames(count=3)), []
    handle = net.student.patch_embed.register_forward_hook(lambda *_: seen.append(1))
    first, second = net.flow_of_clip(clip)
    handle.remove()
    assert len(seen) == 3
    start = best_explained(clip[1], clip[2], carried_on(first.flow))
    with torch.no_grad():
        expected = net.flow(clip[1], clip[2], initial=start)
    torch.testing.assert_close(second.flow, expected.flow)


def test_where_to_start_is_chosen_by_what_explains_the_frames():
    source = torch.rand(1, 3, 32, 48)
    target = source.clone()
    target[..., 24:] = torch.roll(source, 4, 3)[..., 24:]
    shift = torch.zeros(1, 2, 32, 48)
    shift[:, 0] = 4
    best = best_explained(source, target, shift)
    assert not best[..., :16].any()
    assert (best[:, 0, :, 24:40] == 4).all()


def test_large_frames_start_from_the_flow_of_halved_ones(monkeypatch):
    net, seen = make_net({"first": "coarse"}), []
    net.student.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    monkeypatch.setattr(estimation, "LEAST_HALVED", 32)
    with torch.no_grad():
        net.flow(*frames(64, 80))
        net.flow(*frames(48, 80))
    assert sorted(seen) == [(64, 64)] * 2 + [(64, 80)] * 4  # halved frames of 32x40 are padded, those of 48 lines too


def test_flow_is_carried_on_along_itself():
    flow = torch.zeros(1, 2, 8, 16)
    flow[0, 0, :, :] = 2
    flow[0, 0, :, 8:] = 4
    carried = carried_on(flow)
    assert carried[0, 0, 0, 0] == 2
    assert carried[0, 0, 0, 15] == 4
    assert carried[0, 0, 0, 8] == 2 or carried[0, 0, 0, 8] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": (64, 64)}, "sees whole frames of any size and takes no windows"),
        ({"tile": "training"}, "takes no windows"),
        ({"overlap": 0.5}, r"overlap=0.5 is that of windows"),
        ({"updates": 0}, "updates must be a whole number from 1 to 256, got 0"),
        ({"updates": 2.0}, r"got 2\.0"),
        ({"initial": torch.zeros(1, 2, 8, 8)}, r"initial must be flow of shape \(1, 2, 48, 72\)"),
        ({"initial": torch.full((1, 2, 48, 72), float("nan"))}, "the initial flow"),
    ],
)
def test_options_that_make_no_sense_are_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        net.flow(*frames(), **options)


def test_the_other_kind_of_head_takes_flow_back_but_no_updates():
    head = {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4}
    torch.manual_seed(0)
    net = MidwayNetwork(MidwayConfig(**SMALL, flow_head=head)).eval()
    source, target = frames(32, 32)
    with torch.no_grad():
        found = net.flow(source, target, both=True)
        torch.testing.assert_close(found.backward, net.flow(target, source).flow)
    with pytest.raises(ValueError, match="updates and initial are of correlation heads"):
        net.flow(source, target, updates=3)
    with pytest.raises(ValueError, match="of kind 'dpt', wanted 'correlation'"):
        net.flow_sequence(source, target)


def test_saved_and_loaded_it_is_the_same(net, tmp_path):
    net.save_pretrained(tmp_path)
    again = MidwayNetwork.from_pretrained(tmp_path)
    assert again.flow_head.config == net.flow_head.config == CorrelationHeadConfig.of(net.config.flow_head)
    with torch.no_grad():
        torch.testing.assert_close(again.flow(*frames()).flow, net.flow(*frames()).flow)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("hidden_dim", 4096, "hidden_dim"),
        ("match_dim", 4096, "match_dim"),
        ("pyramid_dims", [8, 12, 4096], r"pyramid_dims\[2\]"),
        ("radius", 4, "levels and radius"),
        ("refine_radius", 3, "refine_radius"),
        ("motion_dim", 4096, "motion_dim"),
    ],
)
def test_numbers_that_the_weights_contradict_are_named_before_memory_is_taken(net, tmp_path, key, value, named):
    net.save_pretrained(tmp_path)
    config = MidwayConfig.from_pretrained(tmp_path)
    config.flow_head[key] = value
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=named):
        MidwayNetwork.from_pretrained(tmp_path)


def test_weights_in_half_precision_load_and_estimate(net, tmp_path):
    net.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = net.flow(*frames()).flow
        found = MidwayNetwork.from_pretrained(tmp_path, dtype="bfloat16").flow(*frames()).flow
        with torch.autocast("cpu", torch.bfloat16):
            cast = net.flow(*frames()).flow
    assert found.dtype == cast.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.2 + 0.1 * expected.abs().mean()
    assert (cast - expected).abs().mean() < 0.2 + 0.1 * expected.abs().mean()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cost"}, "kind must be one of dpt, correlation"),
        ({"kind": "correlation", "layer_dims": [1, 1, 1, 1]}, "CorrelationHeadConfig has no layer_dims"),
        ({"kind": "correlation", "pyramid_dims": [8, 8]}, "pyramid_dims of a flow head are three widths, got 2"),
        ({"kind": "correlation", "levels": 0}, "levels must be a whole number from 1 to 8, got 0"),
        ({"kind": "correlation", "motion_dim": 2}, "motion_dim must be a whole number from 3"),
        ({"kind": "correlation", "first": "dynamics"}, "first must be one of zero, matching"),
        ({"kind": "correlation", "encoder_side": 0}, "encoder_side must be whole numbers of at least 1"),
        ({"kind": "correlation", "dynamics": 1}, "dynamics must be true or false, got 1"),
        ({"kind": "correlation", "scale_bounds": [2, 1]}, "scale_bounds must be positive and rising"),
        ({"kind": "correlation", "updates": 10**6}, "updates must be a whole number from 1 to 256"),
    ],
)
def test_configurations_that_do_not_work_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FlowHeadConfig.of(values)


def test_a_head_without_kind_is_the_papers():
    assert FlowHeadConfig.of({}).kind == "dpt"
    with pytest.raises(ValueError, match=r"does without them by flow_head\.dynamics=false"):
        MidwayConfig(**{**SMALL, "dynamics": False, "flow_head": HEAD})


def test_gradients_reach_every_part_of_the_head(net):
    net = make_net(seed=1).train()
    sequence, _, _ = net.flow_sequence(*frames())
    sum(estimate.abs().sum() for estimate in (*sequence.coarse, *sequence.fine)).backward()
    without = [name for name, parameter in net.flow_head.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_file_with_its_keys_alone_lists_what_is_missing(net, tmp_path):
    net.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["flow_head.update.gates.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(Exception, match=r"flow_head\.update\.gates\.weight"):
        MidwayNetwork.from_pretrained(tmp_path)


def test_without_the_dynamics_gates_the_head_keeps_its_own():
    net = make_net(predictor_depth=2)
    ungated = without_gates(net)
    assert torch.equal(ungated.flow_head.update.gates.weight, net.flow_head.update.gates.weight)
    assert not ungated.config.gating
