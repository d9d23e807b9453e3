"""The flow head: DPT, what it reads of the dynamics, and flow of frames of any size."""

import copy
import dataclasses
import math
import weakref

import pytest
import torch
from conftest import TINY, make_tiny_net
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import FlowHeadConfig
from midway_hub.models.backbone import MidwayBackbone
from midway_hub.models.dpt import DPT
from midway_hub.models.flow import FlowHead, confidence, estimate_flow, flow_head_inputs
from midway_hub.models.network import MissingHeadError

HEAD = {"layer_dims": [8, 12, 16, 24], "feature_dim": 16, "last_dim": 8, "tile": [64, 96]}
RESIDUAL_UNIT_PARAMETERS = 2 * (256 * 256 * 9 + 256)


def frames(height, width, batch=1, seed=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pair(height, width, batch=1):
    return frames(height, width, batch), frames(height, width, batch, seed=2)


def flow_net(**changes):
    return make_tiny_net(flow_head=HEAD, **changes)


@pytest.fixture(scope="module")
def net():
    """A tiny network with a flow head; tests that change it copy it."""
    return flow_net()


# -- DPT -----------------------------------------------------------------------------------------------------------


class TransformersDPT(nn.Module):
    """transformers' neck, which wants tokens with a CLS slot, and the output layers of CroCo v2 after it."""

    def __init__(self, dims, *, layer_dims, feature_dim, last_dim):
        modeling = pytest.importorskip("transformers.models.dpt.modeling_dpt")
        super().__init__()
        config = modeling.DPTConfig(
            hidden_size=dims[0],
            readout_type="ignore",
            neck_hidden_sizes=list(layer_dims),
            fusion_hidden_size=feature_dim,
            neck_ignore_stages=[],
            use_auxiliary_head=False,
        )
        self.neck = modeling.DPTNeck(config)
        for layer, dim, out in zip(self.neck.reassemble_stage.layers, dims, layer_dims, strict=True):
            layer.projection = nn.Conv2d(dim, out, 1)
        self.output = nn.Sequential(
            nn.Conv2d(feature_dim, feature_dim // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(feature_dim // 2, last_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last_dim, 3, 1),
        )

    def forward(self, maps):
        height, width = maps[0].shape[-2:]
        tokens = [nn.functional.pad(each.flatten(2).transpose(1, 2), (0, 0, 1, 0)) for each in maps]
        return self.output(self.neck(tokens, height, width)[-1])

    def copy_to(self, ours):
        """Give `ours` these weights, module by module; returns how many numbers were given."""
        output = ours.output
        pairs = [(output.reduce, self.output[0]), (output.refine, self.output[2]), (output.project, self.output[4])]
        for index, layer in enumerate(self.neck.reassemble_stage.layers):
            projection, scale, convolution = ours.reassemble[index]
            pairs += [(projection, layer.projection), (scale, layer.resize), (convolution, self.neck.convs[index])]
        for fusion, layer in zip(reversed(ours.fusions), self.neck.fusion_stage.layers, strict=True):
            units = [(fusion.unit, layer.residual_layer2)]
            units += [(fusion.skip, layer.residual_layer1)] if fusion.skip is not None else []
            pairs.append((fusion.project, layer.projection))
            for unit, theirs in units:
                pairs += [(unit[1], theirs.convolution1), (unit[3], theirs.convolution2)]
        for mine, theirs in pairs:
            mine.load_state_dict(theirs.state_dict())
        return sum(parameter.numel() for mine, _ in pairs for parameter in mine.parameters())


@pytest.mark.parametrize("grid", [(4, 6), (10, 12), (2, 2)])
@pytest.mark.parametrize("dims", [(20, 20, 20, 20), (10, 20, 30, 40)])
def test_dpt_equals_that_of_transformers_with_the_same_weights(grid, dims):
    sizes = {"layer_dims": (8, 12, 16, 24), "feature_dim": 16, "last_dim": 8}
    theirs, ours = TransformersDPT(dims, **sizes).double(), DPT(dims, **sizes).double()
    assert theirs.copy_to(ours) == sum(parameter.numel() for parameter in ours.parameters())
    maps = [torch.randn(2, dim, *grid, dtype=torch.float64) for dim in dims]
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-10, atol=1e-12)


def test_dpt_has_crocos_number_of_parameters_but_for_the_unit_that_nothing_reaches():
    assert sum(p.numel() for p in DPT([384] * 4).parameters()) == 19_513_027 - RESIDUAL_UNIT_PARAMETERS == 18_332_867


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (5, 4), (7, 5), (29, 3)])
@pytest.mark.parametrize("patch_size", [16, 8, 14])
def test_dpt_covers_every_grid_with_whole_patches(grid, patch_size):
    dpt = DPT([6] * 4, layer_dims=(4, 4, 4, 4), feature_dim=4, last_dim=4, patch_size=patch_size)
    output = dpt([torch.randn(1, 6, *grid) for _ in range(4)])
    assert output.shape == (1, 3, grid[0] * patch_size, grid[1] * patch_size)


def test_every_parameter_of_dpt_gets_a_gradient():
    dpt = DPT([6] * 4, layer_dims=(4, 4, 4, 4), feature_dim=4, last_dim=4)
    dpt([torch.randn(2, 6, 3, 5) for _ in range(4)]).square().sum().backward()
    assert [name for name, parameter in dpt.named_parameters() if parameter.grad is None] == []


def test_dpt_refuses_maps_of_several_grids():
    dpt = DPT([6] * 4, layer_dims=(4, 4, 4, 4), feature_dim=4, last_dim=4)
    with pytest.raises(ValueError, match=r"reads four maps on one grid, got \[\(1, 6, 2, 2\), .*\(1, 6, 2, 3\)\]"):
        dpt([torch.randn(1, 6, 2, 2 + (index == 3)) for index in range(4)])
    with pytest.raises(ValueError, match="reads four maps on one grid"):
        dpt([torch.randn(1, 6, 2, 2)] * 3)


@pytest.mark.parametrize("how", ["cast", "autocast"])
def test_flow_of_a_bfloat16_head_is_finer_than_bfloat16(how):
    head = FlowHead(FlowHeadConfig.of(HEAD), MidwayConfig(**TINY))
    head.dpt.output.project.bias.data.fill_(100.0)
    tokens = tuple(torch.randn(1, 7, 48) for _ in range(4))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        if how == "cast":
            head, tokens = head.bfloat16(), tuple(each.bfloat16() for each in tokens)
        estimate = head(tokens, (2, 3))
    assert estimate.dtype == torch.float32
    assert (estimate[:, :2] != estimate[:, :2].bfloat16()).float().mean() > 0.5


# -- what it reads -------------------------------------------------------------------------------------------------


def test_the_inputs_come_in_the_papers_order(net):
    source, target = pair(32, 48)
    motion = net.infer_motion(source, target)
    tokens = net.encode(source, output_format="tokens", network="student").last
    inputs = flow_head_inputs(tokens, motion, net.dynamics.motion_proj)
    assert inputs[0] is tokens
    torch.testing.assert_close(inputs[1], net.dynamics.motion_proj(motion.target_context))
    assert inputs[2] is motion.predicted[motion.levels.index(8)]
    assert inputs[3] is motion.predicted[motion.levels.index(2)]


def test_the_first_input_is_of_the_source_frame_alone(net):
    source, target = (frame.requires_grad_() for frame in pair(32, 48))
    read = []
    handle = net.flow_head.register_forward_pre_hook(lambda head, arguments: read.append(arguments))
    net.predict_flow(source, target)
    handle.remove()
    tokens, grid = read[0]
    assert grid == (2, 3)
    torch.testing.assert_close(tokens[0], net.encode(source, output_format="tokens", network="student").last)
    assert torch.autograd.grad(tokens[0].sum(), target, allow_unused=True, retain_graph=True)[0] is None


def test_cls_tokens_are_not_read():
    head = FlowHead(FlowHeadConfig.of(HEAD), MidwayConfig(**TINY))
    tokens = [torch.randn(1, 7, 48) for _ in range(4)]
    changed = [torch.cat([each[:, :1] + 9, each[:, 1:]], dim=1) for each in tokens]
    torch.testing.assert_close(head(tuple(tokens), (2, 3)), head(tuple(changed), (2, 3)))


def test_tokens_lie_on_the_grid_row_by_row():
    head = FlowHead(FlowHeadConfig.of(HEAD), MidwayConfig(**TINY))
    seen = []
    head.dpt.register_forward_pre_hook(lambda dpt, arguments: seen.extend(arguments[0]))
    tokens = torch.randn(2, 7, 48)
    head((tokens,) * 4, (2, 3))
    for row in range(2):
        for column in range(3):
            assert torch.equal(seen[0][:, :, row, column], tokens[:, 1 + row * 3 + column])


@pytest.mark.parametrize("count", [6, 8, 17])
def test_tokens_that_the_grid_does_not_hold_are_refused(count):
    head = FlowHead(FlowHeadConfig.of(HEAD), MidwayConfig(**TINY))
    with pytest.raises(ValueError, match=rf"a grid of \(2, 3\) holds 6 patches and a CLS token .* got {count} tokens"):
        head((torch.randn(1, count, 48),) * 4, (2, 3))


# -- flow of frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "target_network"),
    [
        ((101, 67), "ema"),
        ((101, 67), "shared"),
        ((1, 1), "shared"),
        pytest.param((375, 1242), "shared", marks=pytest.mark.slow),
        pytest.param((436, 1024), "ema", marks=pytest.mark.slow),
    ],
)
def test_flow_has_the_size_of_the_frames(size, target_network):
    net = flow_net(target_network=target_network)
    with torch.no_grad():
        output = net.flow(*pair(*size))
    assert output.flow.shape == (1, 2, *size)
    assert output.uncertainty.shape == (1, *size)
    assert output.flow.isfinite().all()
    assert output.uncertainty.isfinite().all()


def test_flow_of_a_small_patch_has_the_size_of_the_frames():
    net = flow_net(patch_size=8, image_size=32)
    assert net.flow(*pair(45, 51)).flow.shape == (1, 2, 45, 51)


def test_frames_are_padded_by_their_edge_and_cropped_back(net):
    source, target = pair(37, 50)
    padded = [nn.functional.pad(frame, (0, 14, 0, 11), mode="replicate") for frame in (source, target)]
    torch.testing.assert_close(net.flow(source, target).flow, net.predict_flow(*padded)[:, :2, :37, :50])


def test_flow_of_whole_patches_is_what_the_head_says(net):
    source, target = pair(32, 48, batch=2)
    output, estimate = net.flow(source, target), net.predict_flow(source, target)
    torch.testing.assert_close(output.flow, estimate[:, :2])
    scale = 3.75 / (1 + (-estimate[:, 2].double()).exp()) + 0.25
    torch.testing.assert_close(output.uncertainty.double(), scale.log(), rtol=1e-5, atol=1e-6)


def test_a_pair_in_a_batch_has_the_flow_it_has_alone(net):
    source, target = pair(32, 48, batch=3)
    torch.testing.assert_close(net.flow(source, target).flow[1:2], net.flow(source[1:2], target[1:2]).flow)


def test_flow_from_source_to_target_is_not_flow_from_target_to_source(net):
    source, target = pair(32, 48)
    assert not torch.allclose(net.flow(source, target).flow, net.flow(target, source).flow, atol=1e-4)


def test_every_entry_of_every_position_embedding_is_resized_to_the_frames_grid():
    net = flow_net(target_network="shared")
    net.predict_flow(*pair(112, 80)).square().sum().backward()  # a grid of 7×5; 4×4 are stored
    for embedding in (net.student.pos_embed, net.dynamics.position_embedding):
        assert (embedding.grad.abs().sum(dim=-1) > 0).all()


def test_positions_are_resized_height_first(net):
    dynamics = copy.deepcopy(net.dynamics)
    half = 1 + 4 * 4
    with torch.no_grad():
        rows = torch.arange(4.0).repeat_interleave(4)
        for first in (1, half + 1):
            dynamics.position_embedding[0, first : first + 16] = rows[:, None]
        for positions in dynamics._positions((7, 5)):
            grid = positions[0, 1:, 0].unflatten(0, (7, 5))
            torch.testing.assert_close(grid, grid[:, :1].expand(7, 5))
            assert (grid[1:, 0] > grid[:-1, 0]).all()


# -- tiles ---------------------------------------------------------------------------------------------------------


def moved_colours(seen, scale=0.0):
    """A stand-in for the network: flow is the source's first two colours, s is `scale`."""

    def predict(source, target):
        seen.extend([tuple(source.shape[-2:])] * len(source))
        return torch.cat([source[:, :2], torch.full_like(source[:, :1], scale)], dim=1)

    return predict


def tiled(predict, source, target, tile, overlap=None):
    return estimate_flow(predict, FlowHeadConfig.of(HEAD), MidwayConfig(**TINY), source, target, tile, overlap)


@pytest.mark.parametrize(("overlap", "windows"), [(None, 20), (0.5, 20), (0.7, 42), (0.0, 9)])
@pytest.mark.parametrize("tile", ["training", (64, 96), [64, 96]])
def test_windows_of_the_training_crop_cover_the_frame(tile, overlap, windows):
    seen, (source, target) = [], pair(150, 250)
    output = tiled(moved_colours(seen), source, target, tile, overlap)
    torch.testing.assert_close(output.flow, source[:, :2])
    assert seen == [(64, 96)] * windows


@pytest.mark.parametrize("size", [(40, 250), (150, 30), (9, 17), (64, 96)])
def test_frames_smaller_than_a_window_are_padded_up_to_it(size):
    seen, (source, target) = [], pair(*size)
    output = tiled(moved_colours(seen), source, target, "training")
    assert set(seen) == {(64, 96)}
    torch.testing.assert_close(output.flow, source[:, :2])


def test_a_frame_of_one_window_has_the_flow_of_the_whole_frame(net):
    source, target = pair(64, 96)
    whole, tile = net.flow(source, target), net.flow(source, target, tile="training")
    torch.testing.assert_close(tile.flow, whole.flow)
    torch.testing.assert_close(tile.uncertainty, whole.uncertainty)


def test_windows_are_weighted_by_confidence():
    predictions = [(1.0, 2.0), (5.0, -3.0)]  # flow and s of two windows, half over each other

    def predict(source, target):
        told = torch.tensor([(value, -value, s) for value, s in predictions])
        return told.view(-1, 3, 1, 1).expand(-1, 3, *source.shape[-2:])

    output = tiled(predict, *pair(64, 144), "training", 0.0)
    weights = [math.exp(-20 * (1 / (1 + math.exp(-s / 5)) - 0.5)) for s in (2.0, -3.0)]
    flow = (weights[0] * 1 + weights[1] * 5) / sum(weights)
    s = (weights[0] * 2 + weights[1] * -3) / sum(weights)
    expected = torch.tensor([1.0] * 48 + [flow] * 48 + [5.0] * 48)
    torch.testing.assert_close(output.flow[0, 0, 7], expected)
    torch.testing.assert_close(output.flow[0, 1], -output.flow[0, 0])
    assert output.uncertainty[0, 7, 72].item() == pytest.approx(math.log(3.75 / (1 + math.exp(-s)) + 0.25), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [-60.0, 60.0])
def test_extreme_scales_of_a_half_network_neither_overflow_nor_vanish(dtype, scale):
    source, target = (frame.to(dtype) for frame in pair(70, 130))
    output = tiled(moved_colours([], scale), source, target, "training", 0.9)
    assert output.flow.dtype == output.uncertainty.dtype == torch.float32
    torch.testing.assert_close(output.flow, source[:, :2].float(), rtol=1e-5, atol=1e-5)
    assert output.uncertainty.isfinite().all()


def test_the_weights_range_from_e_to_the_minus_ten_to_e_to_the_ten():
    s = torch.tensor([-1e4, -5.0, 0.0, 5.0, 1e4]).view(1, 1, 1, 5)
    weights = confidence(torch.cat([s, s, s], dim=1).half())[0, 0, 0]
    expected = [math.exp(10), 101.7, 1.0, 1 / 101.7, math.exp(-10)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("tile", [(64, 90), (0, 96), (64,), 64, (64.0, 96.0), "crop", (-16, 96)])
def test_a_tile_without_whole_patches_is_refused(net, tile):
    with pytest.raises(
        ValueError, match=r"tile must be 'training', 'default' or \(height, width\) in multiples of 16 pixels"
    ):
        net.flow(*pair(64, 96), tile=tile)


def test_a_head_can_say_that_flow_is_estimated_in_tiles(net):
    frames = pair(96, 128)
    whole = net.flow(*frames)
    told = copy.deepcopy(net)
    told.flow_head.config = dataclasses.replace(told.flow_head.config, tiled=True)
    torch.testing.assert_close(told.flow(*frames).flow, net.flow(*frames, tile="training").flow)
    by_name = net.flow(*frames, tile=(64, 96), overlap=0.75)
    torch.testing.assert_close(told.flow(*frames, overlap=0.75).flow, by_name.flow)
    torch.testing.assert_close(told.flow(*frames, tile=None).flow, whole.flow)
    assert not torch.allclose(told.flow(*frames).flow, whole.flow)


def test_an_overlap_out_of_range_or_without_a_tile_is_refused(net):
    with pytest.raises(ValueError, match=r"overlap must be at least 0 and below 1, got 1\.0"):
        net.flow(*pair(64, 96), tile="training", overlap=1.0)
    with pytest.raises(ValueError, match=r"overlap=0\.5 is that of windows, and there are none: name a tile too"):
        net.flow(*pair(64, 96), overlap=0.5)


def test_unequal_frames_are_refused(net):
    with pytest.raises(ValueError, match="source and target must agree in shape"):
        net.flow(frames(64, 96), frames(64, 80))


# -- training ------------------------------------------------------------------------------------------------------


def without_gradient(net):
    net.predict_flow(*pair(32, 48)).square().sum().backward()
    return {name for name, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()}


def test_gradients_reach_all_of_a_shared_network_but_what_no_prediction_reads():
    idle = without_gradient(flow_net(target_network="shared"))
    assert all(name.startswith("dynamics.levels.2.backward_ema.") for name in idle)


def test_gradients_stay_out_of_the_moving_averages():
    net = flow_net(target_network="ema")
    idle = without_gradient(net)
    assert idle == {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert any(name.startswith("teacher.") for name in idle)


@pytest.mark.parametrize("tile", [None, "training"])
def test_gradients_reach_both_frames_through_padding_and_tiles(tile):
    net = flow_net(target_network="shared")
    source, target = (frame.requires_grad_() for frame in pair(70, 99))
    net.flow(source, target, tile=tile).flow.square().sum().backward()
    for frame in (source, target):
        assert frame.grad.isfinite().all()
        assert frame.grad[..., -1, -1].any()


@pytest.mark.slow
def test_flow_compiles_whole():
    net = flow_net(target_network="shared")
    source, target = pair(48, 32)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(net.predict_flow, backend=counter, fullgraph=True)
    torch.testing.assert_close(compiled(source, target), net.predict_flow(source, target), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_float32(net, dtype):
    source, target = pair(50, 40)
    exact, half = net.flow(source, target), copy.deepcopy(net).to(dtype).flow(source, target)
    assert half.flow.dtype == half.uncertainty.dtype == torch.float32
    torch.testing.assert_close(half.flow, exact.flow, rtol=0.1, atol=0.05 * exact.flow.std().item() + 0.05)


# -- weights -------------------------------------------------------------------------------------------------------


def torch_bound(module):
    """torch draws a convolution's weights uniformly up to this."""
    return 1 / math.sqrt(module.weight[0].numel())


def test_the_head_starts_from_torchs_own_weights():
    net = MidwayNetwork(MidwayConfig(**TINY, flow_head=HEAD))
    convolutions = [module for module in net.flow_head.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 32
    for module in convolutions:
        assert 0.7 * torch_bound(module) < module.weight.abs().max() <= torch_bound(module)
        assert module.bias is None or module.bias.any()


def test_a_head_put_on_a_checkpoint_without_one_starts_from_torchs_own_weights(tmp_path):
    make_tiny_net().save_pretrained(tmp_path)
    net = MidwayNetwork.from_pretrained(tmp_path, flow_head=HEAD, strict=False)
    assert all(key.startswith("flow_head.") for key in net.load_report.missing)
    for module in net.flow_head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert 0.7 * torch_bound(module) < module.weight.abs().max() <= torch_bound(module)


def test_a_network_is_saved_and_loaded_with_its_head(tmp_path):
    net = flow_net(target_network="shared")
    net.save_pretrained(tmp_path)
    loaded = MidwayNetwork.from_pretrained(tmp_path)
    assert loaded.has_flow_head
    assert loaded.flow_head.config == FlowHeadConfig.of(HEAD)
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in net.state_dict().items())
    torch.testing.assert_close(loaded.flow(*pair(40, 50)).flow, net.flow(*pair(40, 50)).flow)


def test_sharing_the_encoder_keeps_the_head(net):
    shared = net.with_shared_encoder("student")
    assert all(
        torch.equal(a, b) for a, b in zip(shared.flow_head.parameters(), net.flow_head.parameters(), strict=True)
    )
    assert shared.flow(*pair(32, 48)).flow.isfinite().all()


def test_transformers_loads_a_network_with_its_head(tmp_path, net):
    from transformers import AutoModel

    net.save_pretrained(tmp_path)
    auto = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(auto.flow(*pair(40, 50)).flow, net.flow(*pair(40, 50)).flow)
    backbone = MidwayBackbone.from_pretrained(tmp_path)
    torch.testing.assert_close(backbone(frames(32, 48)).feature_maps[0], net.encode(frames(32, 48)).last)


def test_half_precision_weights_are_saved_and_loaded(tmp_path):
    half = flow_net(target_network="shared").half()
    half.save_pretrained(tmp_path)
    kept = MidwayNetwork.from_pretrained(tmp_path, dtype="auto")
    assert kept.flow_head.dpt.output.project.weight.dtype == torch.float16
    torch.testing.assert_close(kept.flow(*pair(40, 50)).flow, half.flow(*pair(40, 50)).flow, rtol=1e-2, atol=1e-2)
    assert MidwayNetwork.from_pretrained(tmp_path).flow_head.dpt.output.project.weight.dtype == torch.float32


def test_a_flow_head_without_dynamics_is_refused():
    with pytest.raises(ValueError, match="a flow head reads the dynamics' predictions, and dynamics is false"):
        MidwayConfig(**TINY, dynamics=False, flow_head=HEAD)


# -- flow of a clip ------------------------------------------------------------------------------------------------


def clip(count, height, width, batch=1):
    return [frames(height, width, batch, seed=number) for number in range(count)]


def count_encodings(net, monkeypatch):
    """Note by encoder what is encoded, frame or window: the sum of its pixels, which tells it from the others."""
    seen = {}
    for name in ("student", "teacher") if net.config.target_network == "ema" else ("student",):
        encoder, noted = getattr(net, name), seen.setdefault(name, [])

        def noting(images, layers, tokens=encoder.tokens, noted=noted):
            noted.extend(round(float(image.double().sum()), 4) for image in images)
            return tokens(images, layers)

        monkeypatch.setattr(encoder, "tokens", noting)
    return seen


@pytest.mark.parametrize("target_network", ["shared", "ema"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((64, 96), {}),
        ((67, 101), {}),
        ((50, 40), {"tile": (32, 32), "overlap": 0.25}),
        ((150, 130), {"tile": "training"}),
        ((33, 47), {"tile": (48, 48)}),
    ],
)
def test_flow_of_a_clip_is_that_of_its_pairs(target_network, size, options):
    net, images = flow_net(target_network=target_network), clip(4, *size, batch=2)
    with torch.no_grad():
        found = list(net.flow_of_clip(iter(images), **options))
        assert len(found) == 3
        for one, source, target in zip(found, images, images[1:], strict=False):
            expected = net.flow(source, target, **options)
            torch.testing.assert_close(one.flow, expected.flow, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(one.uncertainty, expected.uncertainty, atol=1e-4, rtol=1e-4)
            assert one.flow.abs().max() > 0.01


@pytest.mark.parametrize(
    ("options", "windows"), [({}, 1), ({"tile": (32, 32)}, 12), ({"tile": (32, 32), "overlap": 0.0}, 6)]
)
def test_no_network_encodes_a_frame_of_a_clip_twice(monkeypatch, options, windows):
    images = clip(5, 80, 64)
    for target_network in ("shared", "ema"):
        net = flow_net(target_network=target_network)
        with monkeypatch.context() as patched, torch.no_grad():
            seen = count_encodings(net, patched)
            list(net.flow_of_clip(images, **options))
        wanted = {"shared": {"student": 5}, "ema": {"student": 4, "teacher": 4}}[target_network]
        for name, noted in seen.items():
            assert len(noted) == len(set(noted)) == windows * wanted[name]


def test_flow_of_a_clip_comes_as_its_frames_do():
    net, asked = flow_net(target_network="shared"), []

    def coming():
        for number, image in enumerate(clip(4, 32, 32)):
            asked.append(number)
            yield image

    with torch.no_grad():
        found = net.flow_of_clip(coming())
        next(found)
        assert asked == [0, 1]
        next(found)
        assert asked == [0, 1, 2]


def test_a_clip_keeps_no_more_than_one_frame_encoded(monkeypatch):
    net, alive = flow_net(target_network="shared"), []
    encode = net.student.tokens

    def noting(images, layers):
        tokens = encode(images, layers)
        alive.append(weakref.ref(tokens[0]))
        return tokens

    monkeypatch.setattr(net.student, "tokens", noting)
    with torch.no_grad():
        for _ in net.flow_of_clip(clip(8, 32, 32)):
            assert sum(reference() is not None for reference in alive) <= 2


@pytest.mark.parametrize("count", [0, 1])
def test_a_clip_without_a_pair_has_no_flow(count):
    assert list(flow_net().flow_of_clip(clip(count, 32, 32))) == []


def test_what_is_wrong_with_a_clip_is_said_as_for_a_pair():
    with pytest.raises(ValueError, match="source and target must agree in shape"):
        list(flow_net().flow_of_clip([frames(32, 32), frames(32, 48)]))
    with pytest.raises(MissingHeadError, match="this checkpoint has no flow head"):
        list(make_tiny_net().flow_of_clip(clip(2, 32, 32)))
    with pytest.raises(ValueError, match="name a tile too"):
        list(flow_net().flow_of_clip(clip(2, 32, 32), overlap=0.5))
