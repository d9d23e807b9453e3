import copy
import json
import pickle
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_tiny_net
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel
from transformers.utils import ModelOutput
from transformers.utils import logging as hf_logging

from midway_hub import MidwayBackbone, MidwayConfig, MidwayNetwork
from midway_hub.models.blocks import GatingUnit
from midway_hub.models.network import MissingHeadError


def frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_dynamics_have_the_published_number_of_parameters():
    net = MidwayNetwork(MidwayConfig())
    trainable = sum(p.numel() for p in net.dynamics.parameters() if p.requires_grad)
    assert round(trainable / 1e6, 2) == 36.60


def test_the_ema_side_is_not_trainable_and_starts_equal():
    net = MidwayNetwork(MidwayConfig(**TINY))
    assert not any(p.requires_grad for p in net.teacher.parameters())
    assert torch.equal(net.teacher.pos_embed, net.student.pos_embed)
    level = net.dynamics.levels["8"]
    assert torch.equal(level.backward_ema[0].mlp.fc1.weight, level.backward[0].mlp.fc1.weight)
    assert not any(p.requires_grad for p in level.backward_ema.parameters())


# -- encode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (48, 112), (160, 16)])
def test_encode_gives_a_grid_of_the_frames_shape(tiny_net, size):
    features = tiny_net.encode(frames(2, 3, *size), layers=[2, -1])
    grid = (size[0] // 16, size[1] // 16)
    assert features.grid == grid
    assert features.last.shape == (2, 48, *grid)
    assert features.cls.shape == (2, 48)
    assert [layer.shape for layer in features.layers] == [(2, 48, *grid)] * 2
    torch.testing.assert_close(features.layers[1], features.last)


def test_tokens_and_grid_hold_the_same_numbers(tiny_net):
    images = frames(2, 3, 48, 64)
    grid, tokens = tiny_net.encode(images), tiny_net.encode(images, output_format="tokens")
    assert tokens.last.shape == (2, 1 + 12, 48)
    torch.testing.assert_close(tokens.last[:, 0], grid.cls)
    torch.testing.assert_close(tokens.last[:, 1 + 4 * 1 + 2], grid.last[:, :, 1, 2])


def test_a_clip_is_encoded_like_its_frames(tiny_net):
    clip = frames(2, 3, 3, 32, 48)
    features = tiny_net.encode(clip, layers=[5])
    assert features.last.shape == (2, 3, 48, 2, 3)
    close(features.last[1, 2], tiny_net.encode(clip[1, 2:3]).last[0])
    close(features.layers[0][0, 1], tiny_net.encode(clip[0, 1:2], layers=[5]).layers[0][0])


def test_student_and_teacher_are_different_networks(tiny_net):
    images = frames(1, 3, 64, 64)
    assert not torch.allclose(tiny_net.encode(images).last, tiny_net.encode(images, network="student").last)


def test_gradients_reach_the_frames_and_the_student(tiny_net):
    images = frames(1, 3, 32, 32).requires_grad_()
    tiny_net.encode(images, network="student").last.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert tiny_net.student.pos_embed.grad.abs().sum() > 0


# -- motion --------------------------------------------------------------------------------------------------------


def test_motion_comes_level_by_level(tiny_net):
    motion = tiny_net.infer_motion(frames(2, 3, 32, 48), frames(2, 3, 32, 48, seed=2))
    assert motion.levels == (8, 5, 2)
    assert motion.grid == (2, 3)
    assert [x.shape for x in motion.latents] == [(2, 10, 24)] * 3
    for tokens in (*motion.source, *motion.target, *motion.predicted):
        assert tokens.shape == (2, 7, 48)
    assert motion.target_context.shape == (2, 7, 24)


def test_predict_repeats_what_infer_motion_predicted(tiny_net):
    source, target = frames(2, 3, 48, 32), frames(2, 3, 48, 32, seed=2)
    motion = tiny_net.infer_motion(source, target)
    for again, first in zip(tiny_net.predict(source, motion), motion.predicted, strict=True):
        close(again, first)


def test_one_motion_serves_many_sources(tiny_net):
    motion = tiny_net.infer_motion(frames(1, 3, 32, 32), frames(1, 3, 32, 32, seed=2))
    sources = frames(3, 3, 32, 32, seed=3)
    together = tiny_net.predict(sources, motion)
    close(together[2][1:2], tiny_net.predict(sources[1:2], motion)[2])


def test_the_motion_depends_on_the_order_of_the_frames(tiny_net):
    a, b = frames(1, 3, 32, 32), frames(1, 3, 32, 32, seed=2)
    assert not torch.allclose(tiny_net.infer_motion(a, b).latents[0], tiny_net.infer_motion(b, a).latents[0])


# -- calls that other packages have ----------------------------------------------------------------------------------


def test_a_network_called_on_images_gives_what_encode_gives(tiny_net):
    images = frames(2, 3, 32, 48)
    output, wanted = tiny_net(images), tiny_net.encode(images, output_format="tokens")
    close(output.last_hidden_state, wanted.last)
    close(output.pooler_output, wanted.cls)
    close(output.feature_map, tiny_net.encode(images).last)
    assert output.features.grid == (2, 3)
    assert output.motion is None


def test_an_encoder_alone_can_be_called_on_images_and_refuses_clips():
    net = make_tiny_net(dynamics=False)
    assert net(frames(1, 3, 32, 32)).last_hidden_state.shape == (1, 5, 48)
    with pytest.raises(ValueError, match="an encoder alone, no dynamics"):
        net(frames(1, 2, 3, 32, 32))


def test_outputs_are_read_by_name_by_key_and_by_position(tiny_net):
    output = tiny_net(frames(1, 3, 32, 32))
    assert isinstance(output, ModelOutput)
    assert output["last_hidden_state"] is output[0] is output.last_hidden_state
    assert list(output.keys()) == ["last_hidden_state", "pooler_output", "feature_map"]
    motion = tiny_net(frames(1, 2, 3, 32, 32))["motion"]
    assert motion["latents"][2] is motion.latents[2]


def test_outputs_survive_pickling_copying_and_moving(tiny_net):
    with torch.no_grad():
        output = tiny_net(frames(1, 2, 3, 32, 32))
    for copied in (pickle.loads(pickle.dumps(output)), copy.deepcopy(output), output.detach().cpu()):
        assert type(copied) is type(output)
        assert list(copied.keys()) == list(output.keys())
        close(copied.motion.latents[2], output.motion.latents[2])
    assert output.to(dtype=torch.float64)["motion"]["latents"][0].dtype == torch.float64


@pytest.mark.parametrize("reshape", [False, True])
def test_intermediate_layers_are_those_of_encode(tiny_net, reshape):
    images = frames(2, 3, 32, 48)
    wanted = tiny_net.encode(images, layers=[10, 11], output_format="grid" if reshape else "tokens")
    found = tiny_net.get_intermediate_layers(images, 2, reshape=reshape)
    assert len(found) == 2
    for layer, want in zip(found, wanted.layers, strict=True):
        close(layer, want if reshape else want[:, 1:])
    (patches, cls), _ = tiny_net.get_intermediate_layers(images, [-1, 0], return_class_token=True)
    close(patches, tiny_net.encode(images, output_format="tokens").last[:, 1:])
    close(cls, wanted.cls)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "between 1 and 12"),
        ({"n": 13}, "between 1 and 12"),
        ({"n": [12]}, "do not exist"),
        ({"norm": False}, "final norm"),
    ],
)
def test_intermediate_layers_that_do_not_exist_are_refused(tiny_net, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_net.get_intermediate_layers(frames(1, 3, 32, 32), **arguments)


def test_the_width_has_the_name_that_timm_gives_it(tiny_net):
    assert tiny_net.num_features == tiny_net.encode(frames(1, 3, 32, 32)).cls.shape[-1] == 48


@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_a_clip_gives_what_its_pairs_give(target_network):
    net = make_tiny_net(target_network=target_network)
    clip = frames(2, 4, 3, 32, 48)
    output = net(clip)
    close(output.features.last, net.encode(clip).last)
    for pair in range(3):
        motion = net.infer_motion(clip[:, pair], clip[:, pair + 1])
        close(output.motion.pair(pair).latents[2], motion.latents[2])
        close(output.motion.pair(pair).predicted[0], motion.predicted[0])
        close(output.motion.pair(pair).target_context, motion.target_context)


@pytest.mark.parametrize(
    ("target_network", "passes"), [("ema", {"student": 3, "teacher": 4}), ("shared", {"student": 4})]
)
def test_every_frame_of_a_clip_is_encoded_once_per_network(target_network, passes):
    net = make_tiny_net(target_network=target_network)
    counted = dict.fromkeys(passes, 0)
    for name in passes:

        def count(module, inputs, name=name):
            counted[name] += inputs[0].shape[0]

        getattr(net, name).patch_embed.register_forward_pre_hook(count)
    net(frames(1, 4, 3, 32, 32))
    assert counted == passes


def test_no_gradient_reaches_the_ema_side_of_the_dynamics(tiny_net):
    tiny_net.requires_grad_(True)
    source, target = frames(1, 3, 32, 32), frames(1, 3, 32, 32, seed=2).requires_grad_()
    motion = tiny_net.infer_motion(source, target)
    sum(x.sum() for x in motion.predicted).backward()
    assert target.grad is None
    assert tiny_net.teacher.pos_embed.grad is None
    assert tiny_net.dynamics.target_embed.weight.grad is None
    assert tiny_net.dynamics.motion_tokens.grad.abs().sum() > 0
    assert tiny_net.student.pos_embed.grad.abs().sum() > 0


def test_a_shared_network_trains_both_sides():
    net = make_tiny_net().with_shared_encoder("teacher")
    target = frames(1, 3, 32, 32, seed=2).requires_grad_()
    sum(x.sum() for x in net.infer_motion(frames(1, 3, 32, 32), target).predicted).backward()
    assert target.grad.abs().sum() > 0
    assert all(p.requires_grad for p in net.parameters())


def test_sharing_keeps_the_chosen_encoder_and_the_dynamics(tiny_net):
    shared = tiny_net.with_shared_encoder("teacher")
    images = frames(1, 3, 48, 48)
    assert shared.config.target_network == "shared"
    assert tiny_net.config.target_network == "ema"
    torch.testing.assert_close(shared.encode(images).last, tiny_net.encode(images).last)
    assert torch.equal(
        shared.dynamics.levels["5"].gates[1].mlp.fc2.weight, tiny_net.dynamics.levels["5"].gates[1].mlp.fc2.weight
    )
    assert not any(key.startswith("teacher") for key in shared.state_dict())


# -- how it runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_follows_float32(tiny_net, dtype):
    source, target = frames(1, 3, 32, 48), frames(1, 3, 32, 48, seed=2)
    exact = tiny_net.infer_motion(source, target)
    half = copy.deepcopy(tiny_net).to(dtype).infer_motion(source, target)
    assert half.latents[0].dtype == dtype
    close(half.predicted[2].float(), exact.predicted[2], rtol=0.1, atol=0.1)


def test_float64_agrees_with_float32(tiny_net):
    source, target = frames(1, 3, 32, 48), frames(1, 3, 32, 48, seed=2)
    exact = copy.deepcopy(tiny_net).double().infer_motion(source.double(), target.double())
    close(tiny_net.infer_motion(source, target).predicted[2], exact.predicted[2].float())


def test_eager_attention_gives_the_same_numbers(tiny_net):
    config = copy.deepcopy(tiny_net.config)
    config._attn_implementation = "eager"
    eager = MidwayNetwork(config).eval()
    eager.load_state_dict(tiny_net.state_dict())
    assert not any(m.fused_attn for m in eager.modules() if hasattr(m, "fused_attn"))
    a, b = frames(1, 3, 32, 48), frames(1, 3, 32, 48, seed=2)
    close(eager.infer_motion(a, b).predicted[2], tiny_net.infer_motion(a, b).predicted[2])


def test_gradient_checkpointing_gives_the_same_gradients(tiny_net):
    def gradients(net):
        motion = net.infer_motion(frames(1, 3, 32, 32), frames(1, 3, 32, 32, seed=2))
        sum(x.square().mean() for x in motion.predicted).backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    saved = copy.deepcopy(tiny_net).train()
    saved._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=partial(checkpoint, use_reentrant=False))
    recomputed, plain = gradients(saved), gradients(copy.deepcopy(tiny_net).train())
    assert recomputed.keys() == plain.keys()
    for name in plain:
        close(recomputed[name], plain[name])


def test_compiled_whole_without_a_graph_break(tiny_net):
    clip = frames(1, 3, 3, 32, 48)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(tiny_net, backend=counter, fullgraph=True)
    close(compiled(clip).motion.predicted[2], tiny_net(clip).motion.predicted[2])
    assert counter.frame_count == 1


def test_encode_compiles_whole_at_changing_sizes(tiny_net):
    torch._dynamo.reset()
    encode = torch.compile(tiny_net.encode, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in [(32, 48), (64, 80), (96, 32)]:
        images = frames(1, 3, *size)
        close(encode(images, layers=[2]).layers[0], tiny_net.encode(images, layers=[2]).layers[0])


def test_drop_path_acts_on_the_student_in_training_only():
    net = make_tiny_net(drop_path_rate=0.5)
    images = frames(4, 3, 32, 32)
    torch.testing.assert_close(net.encode(images, network="student").last, net.encode(images, network="student").last)
    net.train()
    torch.testing.assert_close(net.encode(images).last, net.encode(images).last)
    assert not torch.equal(net.encode(images, network="student").last, net.encode(images, network="student").last)


def test_an_encoder_alone_encodes_and_says_it_has_no_motion():
    net = MidwayNetwork(MidwayConfig(**TINY, dynamics=False, target_network="shared")).eval()
    assert not any(key.startswith("dynamics") for key in net.state_dict())
    assert net.encode(frames(1, 3, 32, 32)).last.shape == (1, 48, 2, 2)
    with pytest.raises(ValueError, match="an encoder alone, no dynamics; checkpoints with motion: midway_"):
        net.infer_motion(frames(1, 3, 32, 32), frames(1, 3, 32, 32))


def test_outputs_move_and_detach_as_a_whole(tiny_net):
    output = tiny_net(frames(1, 2, 3, 32, 32))
    moved = output.detach().cpu().to(dtype=torch.float64)
    assert moved.motion.latents[1].dtype == torch.float64
    assert moved.features.last.dtype == torch.float64
    assert moved.motion.levels == (8, 5, 2)
    assert output.motion.latents[0].requires_grad
    assert not moved.motion.latents[0].requires_grad


# -- what it refuses -----------------------------------------------------------------------------------------------

GOOD = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), "images must have shape (B, 3, H, W) or (B, T, 3, H, W), got (3, 32, 32)"),
        (torch.zeros(1, 1, 32, 32), "got (1, 1, 32, 32)"),
        (torch.zeros(0, 3, 32, 32), "images is empty: shape (0, 3, 32, 32)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point and normalised"),
        (torch.zeros(1, 3, 30, 50), "multiples of 16; the nearest legal sizes are 16×48 or 32×64"),
        (torch.full((1, 3, 32, 32), float("nan")), "3072 values that are NaN or infinite of 3072"),
        (torch.zeros(1, 3, 32, 32, device="meta"), "images must be a dense tensor, got a meta tensor"),
    ],
)
def test_encode_refuses_unfit_frames(tiny_net, images, message):
    with pytest.raises(ValueError) as error:
        tiny_net.encode(images)
    assert message in str(error.value)


def not_dense():
    """Tensors that look like frames and are none, with what is said of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that some of these kinds are young or old
        return {
            "meta": (GOOD.to("meta"), "got a meta tensor, which has a shape but no values"),
            "sparse": (GOOD.to_sparse(), "got one of layout torch.sparse_coo; pass its to_dense()"),
            "rows": (GOOD[0, 0].to_sparse_csr(), "got one of layout torch.sparse_csr; pass its to_dense()"),
            "nested": (torch.nested.nested_tensor([GOOD[0], GOOD[0]]), "got a nested tensor; stack frames of one size"),
            "jagged": (
                torch.nested.nested_tensor([GOOD[0], GOOD[0]], layout=torch.jagged),
                "got a nested tensor; stack frames of one size",
            ),
            "quantised": (
                torch.quantize_per_tensor(GOOD, 0.1, 0, torch.quint8),
                "got a quantised tensor of torch.quint8; pass its dequantize()",
            ),
        }


NOT_DENSE = not_dense()


@pytest.mark.parametrize("kind", NOT_DENSE)
@pytest.mark.parametrize("method", ["encode", "infer_motion", "dynamics_tokens", "__call__"])
def test_tensors_that_are_not_dense_are_refused_by_name(tiny_net, kind, method):
    frames, message = NOT_DENSE[kind]
    arguments = {"infer_motion": (frames, frames), "dynamics_tokens": (frames, "student")}.get(method, (frames,))
    with pytest.raises(ValueError, match="must be a dense tensor") as error:
        getattr(tiny_net, method)(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool, torch.int64, torch.uint16],
)
def test_numbers_that_networks_do_not_compute_with_are_refused(tiny_net, dtype):
    with pytest.raises(ValueError, match=f"images must be floating point and normalised .* got {dtype}"):
        tiny_net.encode(GOOD.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_every_usual_width_are_taken_by_a_network_of_any(tiny_net, dtype):
    frames = torch.randn(1, 3, 32, 32)
    close(tiny_net.encode(frames.to(dtype)).last, tiny_net.encode(frames).last, rtol=0.1, atol=0.1)
    close(tiny_net.double().encode(frames.to(dtype)).last, tiny_net.encode(frames).last, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1e30, torch.float32),
        (-1e30, torch.float32),
        (3e38, torch.float32),
        (1e300, torch.float64),
        (6e4, torch.float16),
    ],
)
@pytest.mark.parametrize("network", [torch.float32, torch.float64])
def test_values_that_would_overflow_are_refused(tiny_net, value, dtype, network):
    frames = torch.zeros(1, 3, 32, 32, dtype=dtype)
    frames[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"images holds values from .* normalised frames lie within about 3 of 0"):
        tiny_net.to(network).encode(frames)


@pytest.mark.parametrize(("value", "count"), [(float("nan"), 1), (float("inf"), 1), (-float("inf"), 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_single_value_that_is_not_finite_is_found(tiny_net, value, count, dtype):
    frames = torch.zeros(1, 3, 32, 32, dtype=dtype)
    frames[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=f"images holds {count} values that are NaN or infinite of 3072"):
        tiny_net.encode(frames)


def test_pixels_that_nobody_normalised_are_still_taken(tiny_net):
    assert torch.isfinite(tiny_net.encode(torch.full((1, 3, 32, 32), 255.0)).last).all()


def test_a_network_without_values_or_of_a_type_that_nothing_computes_with_says_so(tiny_net):
    with pytest.raises(ValueError, match="the network is on the meta device, where weights have no values"):
        copy.deepcopy(tiny_net).to("meta").encode(GOOD)
    with pytest.raises(ValueError, match=r"the network is in torch.float8_e4m3fn, .* net.float\(\)"):
        tiny_net.to(torch.float8_e4m3fn).encode(GOOD)


def test_encode_refuses_what_is_no_tensor(tiny_net):
    with pytest.raises(TypeError, match="images must be a normalised tensor, got str; MidwayImageProcessor"):
        tiny_net.encode("frame.jpg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [12]}, "layers [12] do not exist: the encoder has blocks 0 to 11"),
        ({"layers": 3}, "layers must be a sequence of block indices"),
        ({"output_format": "list"}, "output_format must be 'grid' or 'tokens', got 'list'"),
        ({"network": "target"}, "network must be 'student' or 'teacher', got 'target'"),
    ],
)
def test_encode_refuses_unknown_options(tiny_net, arguments, message):
    with pytest.raises(ValueError) as error:
        tiny_net.encode(GOOD, **arguments)
    assert message in str(error.value)


def test_infer_motion_refuses_frames_that_differ(tiny_net):
    with pytest.raises(ValueError, match=r"agree in shape, got \(1, 3, 32, 32\) and \(1, 3, 48, 32\)"):
        tiny_net.infer_motion(GOOD, torch.zeros(1, 3, 48, 32))
    with pytest.raises(ValueError, match=r"target must have shape \(B, 3, H, W\)"):
        tiny_net.infer_motion(GOOD, GOOD[None])


def test_predict_refuses_motion_that_does_not_go_with_the_source(tiny_net):
    motion = tiny_net.infer_motion(GOOD.repeat(2, 1, 1, 1), GOOD.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"patch grid of \(3, 2\), the motion one of \(2, 2\)"):
        tiny_net.predict(torch.zeros(2, 3, 48, 32), motion)
    with pytest.raises(ValueError, match="source holds 3 frames, the motion 2 pairs"):
        tiny_net.predict(torch.zeros(3, 3, 32, 32), motion)
    with pytest.raises(TypeError, match="motion must come from infer_motion"):
        tiny_net.predict(GOOD, motion.latents)
    with pytest.raises(ValueError, match=r"pick one pair of frames with motion\.pair\(index\)"):
        tiny_net.predict(GOOD, tiny_net(GOOD.repeat(1, 2, 1, 1, 1).reshape(1, 2, 3, 32, 32)).motion)


def test_pair_refuses_motion_that_is_not_of_a_clip(tiny_net):
    with pytest.raises(ValueError, match="not of a clip"):
        tiny_net.infer_motion(GOOD, GOOD).pair(0)


def test_forward_wants_images_or_clips_of_two_frames(tiny_net):
    with pytest.raises(ValueError, match="clips of 1 frame; motion needs at least 2"):
        tiny_net(torch.zeros(1, 1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) or \(B, T, 3, H, W\), got \(3, 32, 32\)"):
        tiny_net(GOOD[0])


def test_missing_heads_are_named(tiny_net):
    assert not tiny_net.has_flow_head
    assert not tiny_net.has_segmentation_head
    with pytest.raises(MissingHeadError, match="no flow head; checkpoints in the registry that have one"):
        tiny_net.flow(GOOD, GOOD)
    with pytest.raises(MissingHeadError, match="no segmentation head; checkpoints in the registry that have one"):
        tiny_net.segment(GOOD)


# -- ablations -----------------------------------------------------------------------------------------------------

ABLATIONS = [{"backward": False}, {"refinement": False}, {"gating": False}, {"levels": [8]}]
TWO_FRAMES = (frames(2, 3, 32, 48), frames(2, 3, 32, 48, seed=2))


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_an_ablated_network_is_saved_loaded_and_predicts_what_it_inferred(tmp_path, ablation):
    net = make_tiny_net(**ablation)
    net.save_pretrained(tmp_path)
    loaded = MidwayNetwork.from_pretrained(tmp_path)
    motion = loaded.infer_motion(*TWO_FRAMES)
    assert motion.levels == tuple(net.config.levels)
    for again, first in zip(loaded.predict(TWO_FRAMES[0], motion), motion.predicted, strict=True):
        close(again, first)


def test_without_backward_layers_the_encoders_tokens_are_used():
    net = make_tiny_net(backward=False)
    motion = net.infer_motion(*TWO_FRAMES)
    assert not any(".backward" in key for key in net.state_dict())
    for network, image, refined in (("student", 0, motion.source), ("teacher", 1, motion.target)):
        tokens = net.encode(TWO_FRAMES[image], network=network, layers=[8, 5, 2], output_format="tokens").layers
        for found, expected in zip(refined, tokens, strict=True):
            close(found, expected)


@pytest.mark.parametrize("refinement", [True, False])
def test_without_refinement_no_level_hears_of_the_motion_above(refinement):
    net = make_tiny_net(refinement=refinement)
    before = net.infer_motion(*TWO_FRAMES).latents
    with torch.no_grad():
        for parameter in net.dynamics.levels["8"].parameters():
            parameter.add_(0.1)
    after = net.infer_motion(*TWO_FRAMES).latents
    assert not torch.allclose(after[0], before[0])
    assert all(torch.allclose(a, b, atol=1e-5) is not refinement for a, b in zip(after[1:], before[1:], strict=True))


def test_without_refinement_every_level_starts_from_the_initial_motion_tokens_and_the_last_block():
    net = make_tiny_net(refinement=False)
    motion = net.infer_motion(*TWO_FRAMES)
    tops = [
        net.encode(frame, network=network, output_format="tokens").last
        for frame, network in zip(TWO_FRAMES, ("student", "teacher"), strict=True)
    ]
    positions = net.dynamics._positions((2, 3))
    embedded = (net.dynamics.source_embed(tops[0]) + positions[0], net.dynamics.target_embed(tops[1]) + positions[1])
    entering = torch.cat([net.dynamics.motion_tokens.expand(2, -1, -1), *embedded], dim=1)
    for level, latents in zip(motion.levels, motion.latents, strict=True):
        close(net.dynamics.levels[str(level)].exchange(entering)[:, :10], latents)


def test_without_gating_a_gate_is_open():
    net, gated = make_tiny_net(gating=False), make_tiny_net()
    assert not any(".gates." in key for key in net.state_dict())
    gated.load_state_dict(net.state_dict(), strict=False)
    for module in gated.modules():
        if isinstance(module, GatingUnit):
            module.OPEN = 100.0
    close(net.infer_motion(*TWO_FRAMES).predicted[2], gated.infer_motion(*TWO_FRAMES).predicted[2])


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_every_ema_copy_of_an_ablated_network_follows_a_module(ablation):
    net = MidwayNetwork(MidwayConfig(**{**TINY, **ablation}))
    frozen = {id(p) for p in net.parameters() if not p.requires_grad}
    assert frozen == {id(p) for copied in net.target_side() for p in copied.parameters()}
    for copied, followed in net.target_side().items():
        assert copied.state_dict().keys() == followed.state_dict().keys()


# -- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_saved_weights_come_back_equal(tmp_path, target_network):
    net = make_tiny_net(target_network=target_network)
    net.save_pretrained(tmp_path)
    loaded = MidwayNetwork.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in net.state_dict().items())
    assert {k for k, p in loaded.named_parameters() if p.requires_grad} == {
        k for k, p in net.named_parameters() if p.requires_grad
    }


def test_the_load_report_says_what_was_loaded(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path)
    report = MidwayNetwork.from_pretrained(tmp_path).load_report
    assert str(tmp_path) in report.source
    assert report.directory == tmp_path
    assert report.dtype == torch.float32
    assert report.missing == report.unexpected == ()
    assert len(report.sha256["model.safetensors"]) == 64
    assert report.seconds > 0


def test_float32_is_the_default_and_auto_keeps_what_is_stored(tmp_path, tiny_net):
    tiny_net.half().save_pretrained(tmp_path)
    assert MidwayNetwork.from_pretrained(tmp_path).dtype == torch.float32
    assert MidwayNetwork.from_pretrained(tmp_path, dtype="auto").dtype == torch.float16
    assert MidwayNetwork.from_pretrained(tmp_path, dtype=torch.bfloat16).load_report.dtype == torch.bfloat16


def test_weights_of_another_architecture_are_refused_key_by_key(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 13, "motion_dim": 48}))
    with pytest.raises(ValueError) as error:
        MidwayNetwork.from_pretrained(tmp_path)
    message = str(error.value)
    assert "missing from the file" in message
    assert "student.blocks.12" in message
    assert "of another shape" in message
    assert "dynamics.motion_tokens: file (1, 10, 24), network (1, 10, 48)" in message


def edited(folder, net, **changes):
    """Save a network whose config.json says something else."""
    net.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 13}, "depth is 13; the file has 12 blocks student.blocks.*"),
        ({"depth": 1000}, "depth is 1000; the file has 12 blocks student.blocks.*"),
        ({"predictor_depth": 1024}, "predictor_depth is 1024; the file has 4 blocks dynamics.levels.*.predictor.*"),
        ({"midway_depth": 3}, "midway_depth is 3; the file has 4 blocks dynamics.levels.*.midway.*"),
        ({"levels": [8, 5]}, "levels are [8, 5]; the file has levels [8, 5, 2]"),
        (
            {"motion_dim": 16_383},
            "motion_dim is 16383, which makes dynamics.motion_tokens 16383 long on axis 2; in the file it is (1, 10,",
        ),
        ({"embed_dim": 16_384}, "embed_dim is 16384, which makes student.cls_token 16384 long on axis 2"),
        ({"num_motion_tokens": 16_384}, "num_motion_tokens is 16384, which makes dynamics.motion_tokens 16384 long"),
        ({"image_size": 16_384}, "image_size is 16384, which makes student.pos_embed 1048577 long on axis 1"),
        ({"mlp_ratio": 64}, "mlp_ratio is 64, which makes student.blocks.0.mlp.fc1.weight 3072 long on axis 0"),
        ({"num_channels": 4}, "num_channels is 4, which makes student.patch_embed.proj.weight 4 long on axis 1"),
        ({"flow_head": {"layer_dims": [8192] * 4}}, "flow_head.layer_dims[0] is 8192, and the file has no flow_head."),
        (
            {"segmentation_head": {"classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]], "name": "linear"}},
            "segmentation_head.classes is 2 classes, and the file has no segmentation_head.decoder.classifier.weight",
        ),
    ],
    ids=str,
)
def test_a_configuration_that_contradicts_its_weights_is_refused_number_by_number(tmp_path, tiny_net, wrong, message):
    with pytest.raises(ValueError) as error:
        MidwayNetwork.from_pretrained(edited(tmp_path, tiny_net, **wrong))
    assert "numbers that contradict the weights" in str(error.value)
    assert message in str(error.value)
    assert "correct config.json or fetch it again" in str(error.value)


@pytest.mark.parametrize("door", [MidwayNetwork, MidwayBackbone, AutoModel])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 10**6}, "depth must be at most 1024"),
        ({"hidden_size": 10**9}, "hidden_size, another name for it, 1000000000"),
        ({"dtype": "float99"}, "dtype must be one of"),
        ({"num_labels": 10**9}, "num_labels must be a whole number up to 65536"),
        ({"depth": 1000}, "depth is 1000; the file has 12 blocks"),
    ],
    ids=str,
)
def test_absurd_configurations_are_refused_at_every_door(tmp_path, tiny_net, door, wrong, message):
    with pytest.raises(ValueError, match=message):
        door.from_pretrained(edited(tmp_path, tiny_net, **wrong))


def test_an_error_in_a_configuration_names_its_place(tmp_path, tiny_net):
    for wrong in ({"depth": 10**6}, {"grid_size": 5}, {"id2label": {"a": "b"}}, {"rope_scaling": 5, "rope_theta": 7}):
        with pytest.raises(ValueError) as error:
            MidwayNetwork.from_pretrained(edited(tmp_path, tiny_net, **wrong))
        assert f"the configuration in {tmp_path} describes no network" in str(error.value)


def test_numbers_passed_to_loading_are_compared_too(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="depth must be at most 1024"):
        MidwayNetwork.from_pretrained(tmp_path, depth=10**6)
    with pytest.raises(ValueError, match="motion_dim is 48, which makes"):
        MidwayNetwork.from_pretrained(tmp_path, motion_dim=48, strict=False)
    assert MidwayNetwork.from_pretrained(tmp_path, drop_path_rate=0.25).config.drop_path_rate == 0.25
    assert len(MidwayNetwork.from_pretrained(tmp_path, depth=13, strict=False).student.blocks) == 13


def starts_well(net):
    tensors = [*net.parameters(), *net.buffers()]
    return len(tensors) > 0 and all(tensor.data_ptr() % 64 == 0 for tensor in tensors)


@pytest.mark.parametrize("padding", [0, 4, 20, 36])
def test_loaded_weights_start_on_64_bytes_wherever_they_lie_in_the_file(tmp_path, tiny_net, padding):
    tiny_net.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt", "padding": "x" * padding})
    for door in (MidwayNetwork, AutoModel, MidwayBackbone):
        net = door.from_pretrained(tmp_path)
        assert starts_well(net), door
        assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    for changes in ({"dtype": "auto"}, {"dtype": torch.bfloat16}, {"attn_implementation": "eager"}):
        assert starts_well(MidwayNetwork.from_pretrained(tmp_path, **changes))


def test_weights_of_a_single_file_and_of_several_start_on_64_bytes(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path / "several", max_shard_size="1MB")
    assert len(list((tmp_path / "several").glob("model-*.safetensors"))) > 1
    assert starts_well(MidwayNetwork.from_pretrained(tmp_path / "several"))
    config = {"config": tiny_net.config.to_json_string(), "format": "pt"}
    save_file(tiny_net.state_dict(), tmp_path / "alone.safetensors", metadata=config)
    assert starts_well(MidwayNetwork.from_pretrained(tmp_path / "alone.safetensors", cache_dir=tmp_path / "cache"))


def test_torch_hub_gives_weights_that_start_on_64_bytes():
    root = Path(__file__).resolve().parents[1]
    assert starts_well(torch.hub.load(str(root), "midway_pico_untrained", source="local", trust_repo=True))


def test_the_older_name_of_the_precision_is_honoured(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path)
    for asked in ({"torch_dtype": torch.bfloat16}, {"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}):
        assert MidwayNetwork.from_pretrained(tmp_path, **asked).dtype == torch.bfloat16
        assert AutoModel.from_pretrained(tmp_path, **asked).dtype == torch.bfloat16
    both = MidwayNetwork.from_pretrained(tmp_path, dtype="float16", torch_dtype=torch.float16)
    assert both.dtype == both.load_report.dtype == torch.float16
    assert MidwayNetwork.from_pretrained(tmp_path, torch_dtype="auto").dtype == torch.float32


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dtype": torch.float16, "torch_dtype": torch.bfloat16}, "ask for two precisions; pass dtype alone"),
        ({"dtype": "auto", "torch_dtype": "float32"}, "ask for two precisions"),
        ({"dtype": "float99"}, "dtype must be one of float32, float16, bfloat16, float64, got 'float99'"),
        ({"torch_dtype": torch.int8}, "torch_dtype must be one of"),
        ({"dtype": 16}, "dtype must be one of .*, got 16"),
    ],
    ids=str,
)
def test_precisions_that_cannot_be_are_refused(tmp_path, tiny_net, asked, message):
    tiny_net.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        MidwayNetwork.from_pretrained(tmp_path, **asked)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda:x", "meta", "", "cpu:7", 99, "hal9000"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    with pytest.raises(ValueError, match=r"device '.*' (is|holds) .*; use 'cpu'"):  # before anything is fetched
        MidwayNetwork.from_pretrained("org/never-asked-for", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_is_refused_before_anything_is_fetched():
    for device in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(ValueError, match=r"device 'cuda(:0)?' is not available here; use 'cpu'"):
            MidwayNetwork.from_pretrained("org/never-asked-for", device=device)


def test_saving_draws_no_bar_and_leaves_the_users_bars_as_they_were(tmp_path, tiny_net, capfd):
    for wanted in (True, False):
        (hf_logging.enable_progress_bar if wanted else hf_logging.disable_progress_bar)()
        try:
            tiny_net.save_pretrained(tmp_path)
            assert hf_logging.is_progress_bar_enabled() is wanted
        finally:
            hf_logging.enable_progress_bar()
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_unexpected_keys_are_refused_unless_asked_for(tmp_path, tiny_net):
    tiny_net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "target_network": "shared"}))
    with pytest.raises(ValueError, match="unexpected in the file"):
        MidwayNetwork.from_pretrained(tmp_path)
    loose = MidwayNetwork.from_pretrained(tmp_path, strict=False)
    assert loose.load_report.unexpected
    assert all(key.startswith("teacher.") for key in loose.load_report.unexpected)


# -- on a GPU ------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_gives_what_the_cpu_gives(tiny_net):
    clip = frames(1, 3, 3, 64, 48)
    expected = tiny_net(clip)
    output = copy.deepcopy(tiny_net).cuda()(clip.cuda())
    close(output.motion.predicted[2].cpu(), expected.motion.predicted[2], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
def test_autocast_and_compile_run_on_a_gpu(tiny_net):
    net = copy.deepcopy(tiny_net).cuda()
    clip = frames(1, 3, 3, 64, 48)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = torch.compile(net, fullgraph=True)(clip.cuda())
    close(output.motion.predicted[2].float().cpu(), tiny_net(clip).motion.predicted[2], rtol=0.1, atol=0.1)
