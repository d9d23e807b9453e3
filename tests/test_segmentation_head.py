"""Segmentation heads: what they read, how they start and train, and whole frames against sliding windows."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, make_tiny_net
from torch import nn
from transformers.models.upernet.modeling_upernet import UperNetHead

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.heads import SegmentationHeadConfig
from midway_hub.models.segmentation import SegmentationHead, segment_frames
from midway_hub.models.upernet import AuxiliaryHead

CLASSES = ("road", "sky", "tree")
PALETTE = ((128, 64, 128), (70, 130, 180), (107, 142, 35))
LINEAR = {"name": "linear", "classes": CLASSES, "palette": PALETTE}
BACKWARD = {**LINEAR, "features": "backward", "layers": (2, 0)}
UPERNET = {**LINEAR, "name": "upernet", "layers": (0, 1, 2, 3), "channels": 16, "dropout": 0.1}
SHALLOW = {"depth": 4, "levels": (2, 1, 0), "midway_depth": 1, "predictor_depth": 2}
BOTH = pytest.mark.parametrize("head", [LINEAR, BACKWARD, UPERNET], ids=["linear", "backward", "upernet"])


def frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def tiny_net_with(head: dict, **network) -> MidwayNetwork:
    return make_tiny_net(segmentation_head=head, **{**SHALLOW, **network})


def head_of(values: dict, **network) -> SegmentationHead:
    return SegmentationHead(SegmentationHeadConfig.of(values), MidwayConfig(**network))


def randomise(module: nn.Module) -> nn.Module:
    """Give every weight and every running statistic a value that no other has."""
    for key, tensor in module.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.2)
    return module.eval()


# -- the linear head -------------------------------------------------------------------------------------------------


def test_a_linear_head_is_one_matrix_on_the_joint_channels_of_its_layers():
    net = tiny_net_with({**LINEAR, "layers": (0, 2, 1, -1)})
    images = frames(2, 3, 48, 64)
    layers = net.encode(images, layers=(0, 2, 1, 3)).layers
    classifier = net.segmentation_head.decoder.classifier
    assert classifier.weight.shape == (3, 4 * 48, 1, 1)
    wanted = torch.einsum("kd,bdhw->bkhw", classifier.weight[:, :, 0, 0], torch.cat(layers, 1))
    close(net.predict_classes(images), wanted + classifier.bias[None, :, None, None])


def test_the_papers_linear_head_has_no_batch_norm_and_dinov2s_has_one():
    keys = set(head_of(LINEAR).state_dict())
    assert keys == {"decoder.classifier.weight", "decoder.classifier.bias"}
    normalised = head_of({**LINEAR, "batch_norm": True})
    assert isinstance(normalised.decoder.batch_norm, nn.BatchNorm2d)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(normalised).decoder.batch_norm, nn.SyncBatchNorm)


def test_batch_norm_of_the_linear_head_normalises_what_it_reads():
    head = head_of({**LINEAR, "batch_norm": True}, embed_dim=48, num_heads=4)
    features = 5 + 3 * frames(2, 48, 8, 8)
    seen = []
    head.decoder.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head.train()([features])
    close(seen[0].mean(dim=(0, 2, 3)), torch.zeros(48))
    close(seen[0].std(dim=(0, 2, 3), unbiased=False), torch.ones(48))


def test_a_linear_head_reads_the_backward_features_of_the_targets_side():
    net = tiny_net_with(BACKWARD)
    images = frames(2, 3, 48, 64)
    target = net.infer_motion(frames(2, 3, 48, 64, seed=2), images).target
    grids = [target[index][:, 1:].transpose(1, 2).unflatten(2, (3, 4)) for index in (0, 2)]
    close(net.predict_classes(images), net.segmentation_head(grids))
    other = net.infer_motion(images, images).source
    assert not torch.allclose(other[0], target[0])


# -- UperNet ---------------------------------------------------------------------------------------------------------


def test_upernet_in_evaluation_is_transformers_own_head_with_the_same_weights():
    config = SegmentationHeadConfig.of({**UPERNET, "neck": "none"})
    head = randomise(SegmentationHead(config, MidwayConfig(embed_dim=48, num_heads=4)))
    settings = type("Numbers", (), {"pool_scales": (1, 2, 3, 6), "hidden_size": 16, "num_labels": 3})
    original = UperNetHead(settings, in_channels=[48] * 4).eval()
    original.load_state_dict(head.decoder.state_dict())
    maps = [frames(1, 48, 4, 6, seed=seed) for seed in range(4)]
    torch.testing.assert_close(head(maps), original(maps))


def test_every_batch_norm_of_upernet_can_be_synchronised():
    head = nn.SyncBatchNorm.convert_sync_batchnorm(head_of(UPERNET))
    norms = [type(module) for module in head.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert set(norms) == {nn.SyncBatchNorm}
    assert len(norms) == 1 + 12


def test_training_upernet_on_a_single_frame_says_why_it_cannot():
    net = tiny_net_with(UPERNET).train()
    with pytest.raises(ValueError, match="at least 2 frames at a time, got 1"):
        net.predict_classes(frames(1, 3, 64, 64))
    net.segmentation_head.eval()
    assert net.predict_classes(frames(1, 3, 64, 64)).shape == (1, 3, 16, 16)
    no_pooling_to_one = {**UPERNET, "pool_scales": (2, 3)}
    net = tiny_net_with(no_pooling_to_one).train()
    assert net.predict_classes(frames(1, 3, 64, 64)).shape == (1, 3, 16, 16)


def test_a_grid_that_no_neck_can_halve_is_refused():
    net = tiny_net_with(UPERNET)
    with pytest.raises(ValueError, match=r"this one is 1×4; frames need at least 2 patches along each side"):
        net.predict_classes(frames(1, 3, 16, 64))


def test_a_transformers_without_upernet_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.models.upernet.modeling_upernet", None)
    with pytest.raises(ImportError, match=r"UperNetHead in transformers.models.upernet.modeling_upernet, which"):
        head_of(UPERNET)
    head_of(LINEAR)


def test_the_auxiliary_head_reads_the_third_map_and_has_mmsegs_size():
    head = head_of(UPERNET)
    maps = head.pyramid([frames(2, 384, 4, 4, seed=seed) for seed in range(4)])
    auxiliary = AuxiliaryHead(384, 19)
    assert auxiliary(maps[2]).shape == (2, 19, 4, 4)
    assert sum(p.numel() for p in auxiliary.parameters()) == 384 * 256 * 9 + 2 * 256 + 257 * 19
    assert auxiliary.classifier.dropout == 0.1


# -- first weights ---------------------------------------------------------------------------------------------------


def test_heads_start_as_in_mmsegmentation_inside_a_network_as_well():
    torch.manual_seed(0)
    layout = {**UPERNET, "channels": 64, "neck": "lateral"}
    head = MidwayNetwork(MidwayConfig(**{**TINY, **SHALLOW}, segmentation_head=layout)).segmentation_head
    classifier = head.decoder.classifier
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not classifier.bias.any()
    fused = head.decoder.fpn_bottleneck.conv.weight
    assert fused.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert head.neck.convs[0].weight.abs().max().item() == pytest.approx(math.sqrt(6 / (2 * 48 * 9)), rel=0.05)
    assert not head.neck.convs[0].bias.any()


# -- what a head may read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "network", "message"),
    [
        ({**LINEAR, "layers": (12,)}, {}, r"layers \[12\] do not exist: the encoder has blocks 0 to 3"),
        (UPERNET, {"depth": 3}, r"layers \[3\] do not exist: the encoder has blocks 0 to 2"),
        (BACKWARD, {"dynamics": False}, "reads backward features, and this network has no dynamics"),
        (BACKWARD, {"backward": False}, "reads backward features, and this network has no backward layers"),
        ({**BACKWARD, "layers": (2, 3)}, {}, r"of levels \[3\]; the dynamics have levels 2, 1, 0 \(or -1"),
    ],
)
def test_a_network_without_what_the_head_reads_is_refused_when_it_is_made(head, network, message):
    with pytest.raises(ValueError, match=message):
        tiny_net_with(head, **network)


# -- whole frames ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_any_frame_is_segmented_at_its_own_size(head, target_network):
    net = tiny_net_with(head, target_network=target_network)
    assert net.has_segmentation_head
    for size in [(101, 67), (64, 48), (5, 33)]:
        output = net.segment(frames(2, 3, *size))
        assert output.logits.shape == (2, 3, *size)
        assert torch.equal(output.labels, output.logits.argmax(1))
        assert (output.classes, output.palette) == (CLASSES, PALETTE)
        assert output.logits.isfinite().all()


@BOTH
def test_whole_frames_are_padded_by_their_edge_and_cropped_back(head):
    net = tiny_net_with(head)
    images = frames(1, 3, 37, 50)
    padded = torch.cat([images, images[..., -1:].expand(-1, -1, -1, 14)], 3)
    padded = torch.cat([padded, padded[..., -1:, :].expand(-1, -1, 11, -1)], 2)
    logits = F.interpolate(net.predict_classes(padded), size=(48, 64), mode="bilinear", align_corners=False)
    close(net.segment(images).logits, logits[..., :37, :50])


def test_other_patch_sizes_change_nothing_but_the_grid():
    net = tiny_net_with(UPERNET, patch_size=8)
    assert net.predict_classes(frames(1, 3, 32, 48)).shape == (1, 3, 16, 24)
    assert net.segment(frames(1, 3, 30, 41)).logits.shape == (1, 3, 30, 41)


def test_frames_of_a_batch_do_not_see_each_other():
    net = tiny_net_with(UPERNET)
    images = frames(3, 3, 40, 56)
    close(net.segment(images).logits[1:2], net.segment(images[1:2]).logits)


@pytest.mark.parametrize(("head", "dtype"), [(UPERNET, torch.float16), (LINEAR, torch.bfloat16)])
def test_half_precision_networks_answer_in_fp32(head, dtype):
    net = tiny_net_with(head)
    images = frames(1, 3, 50, 37)
    wanted = net.segment(images).logits
    output = net.to(dtype).segment(images.to(dtype), slide=None)
    assert output.logits.dtype == torch.float32
    assert (output.logits - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert net.segment(images.to(dtype), slide=(32, 21)).logits.dtype == torch.float32


# -- sliding windows -------------------------------------------------------------------------------------------------


class Seen:
    """A `predict` that answers one class on a coarse grid and remembers what it was asked."""

    def __init__(self, answer=lambda windows: windows[:, :1, ::16, ::16]):
        self.answer, self.sizes, self.largest_batch = answer, [], 0

    def __call__(self, windows):
        self.sizes += [tuple(windows.shape[-2:])] * len(windows)
        self.largest_batch = max(self.largest_batch, len(windows))
        return self.answer(windows)


def slide_over(images, slide, predict):
    return segment_frames(predict, SegmentationHeadConfig.of(LINEAR), MidwayConfig(), images, slide)


@pytest.mark.parametrize(("size", "windows"), [((1024, 2048), 18), ((1024, 1820), 15), ((512, 512), 1)])
def test_windows_are_as_many_as_in_mmsegmentation(size, windows):
    predict = Seen()
    slide_over(torch.zeros(1, 3, *size), (512, 341), predict)
    assert predict.sizes == [(512, 512)] * windows


def test_a_frame_smaller_than_the_window_is_one_window_of_its_own_size():
    predict = Seen()
    slide_over(torch.zeros(1, 3, 100, 600), (512, 341), predict)
    assert predict.sizes == [(112, 512)] * 2


def test_constant_logits_stay_constant_under_sliding():
    answer = torch.tensor([1.5, -2.0, 0.25])[None, :, None, None]
    predict = Seen(lambda windows: answer.expand(len(windows), 3, 5, 7))
    output = slide_over(torch.zeros(2, 3, 101, 67), (48, 29), predict)
    close(output.logits, answer.expand(2, 3, 101, 67))
    assert not output.labels.any()


def test_overlapping_windows_are_averaged_as_in_mmsegmentation():
    images = frames(2, 3, 75, 90)

    def answer(windows):
        return windows * (1 + windows.mean(dim=(1, 2, 3), keepdim=True))

    total, counts = torch.zeros(2, 3, 75, 90), torch.zeros(75, 90)
    for y in (0, 20, 27):
        for x in (0, 20, 40, 42):
            window = images[..., y : y + 48, x : x + 48]
            total[..., y : y + 48, x : x + 48] += answer(window)
            counts[y : y + 48, x : x + 48] += 1
    close(slide_over(images, (48, 20), Seen(answer)).logits, total / counts)


@pytest.mark.parametrize(("batch", "together"), [(1, 8), (3, 6), (9, 8)])
def test_windows_go_through_the_network_a_few_at_a_time(batch, together):
    predict = Seen()
    slide_over(torch.zeros(batch, 3, 64, 256), (64, 16), predict)
    assert len(predict.sizes) == 13 * batch
    assert predict.largest_batch == together


@BOTH
def test_sliding_with_one_window_is_the_whole_frame(head):
    net = tiny_net_with(head)
    images = frames(2, 3, 48, 61)
    torch.testing.assert_close(net.segment(images, slide=(64, 40)).logits, net.segment(images, slide=None).logits)


def test_the_heads_own_slide_is_the_default():
    net = tiny_net_with({**LINEAR, "slide": (48, 32)})
    images = frames(1, 3, 80, 96)
    torch.testing.assert_close(net.segment(images).logits, net.segment(images, slide=(48, 32)).logits)
    assert not torch.allclose(net.segment(images).logits, net.segment(images, slide=None).logits)


@pytest.mark.parametrize(
    ("slide", "message"),
    [
        (512, r"such as \(512, 341\), or None for whole frames; got 512"),
        ((512,), r"got \(512,\)"),
        ((512, 341.5), r"got \(512, 341.5\)"),
        ((True, True), r"got \(True, True\)"),
        ("512", "got '512'"),
        ((512, 513), "step by 1 to 512 pixels, the side of its window, got 513"),
        ((512, 0), "step by 1 to 512 pixels, the side of its window, got 0"),
        ((0, 0), "at least 1 pixel"),
    ],
)
def test_a_slide_that_makes_no_sense_is_refused(slide, message):
    net = tiny_net_with(LINEAR)
    with pytest.raises(ValueError, match=message):
        net.segment(frames(1, 3, 32, 32), slide=slide)


# -- training --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_frozen_readout_trains_the_head_alone(head):
    net = tiny_net_with(head)
    net.requires_grad_(False)
    net.segmentation_head.requires_grad_(True).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    labels = torch.randint(0, 3, (2, 48, 64))
    logits = F.interpolate(net.predict_classes(frames(2, 3, 48, 64)), size=(48, 64), mode="bilinear")
    F.cross_entropy(logits, labels).backward()
    assert all(p.grad is not None for p in net.segmentation_head.parameters())
    optimizer.step()
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("segmentation_head.") for key in changed)


@BOTH
def test_finetuning_reaches_a_shared_encoder(head):
    net = tiny_net_with(head, target_network="shared").train()
    net.predict_classes(frames(2, 3, 48, 64)).square().mean().backward()
    assert net.student.patch_embed.proj.weight.grad.abs().sum() > 0


def test_gradients_flow_through_sliding_windows():
    net = tiny_net_with(LINEAR)
    images = frames(1, 3, 60, 60).requires_grad_()
    net.segment(images, slide=(48, 32)).logits.square().sum().backward()
    assert (images.grad.abs().sum(dim=(0, 1)) > 0).all()


# -- kept in checkpoints ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_a_head_survives_saving_and_loading(head, target_network, tmp_path):
    net = tiny_net_with({**head, "slide": [48, 32]}, target_network=target_network)
    randomise(net.segmentation_head)
    net.save_pretrained(tmp_path)
    loaded = MidwayNetwork.from_pretrained(tmp_path)
    images = frames(1, 3, 70, 90)
    output = loaded.segment(images)
    torch.testing.assert_close(output.logits, net.segment(images).logits)
    assert (output.classes, output.palette) == (CLASSES, PALETTE)
    assert loaded.segmentation_head.config == net.segmentation_head.config


@BOTH
def test_a_head_added_to_a_checkpoint_without_one_starts_fresh(head, tmp_path):
    make_tiny_net(**SHALLOW).save_pretrained(tmp_path)
    torch.manual_seed(0)
    net = MidwayNetwork.from_pretrained(tmp_path, segmentation_head=head, strict=False)
    missing = {key for key in net.state_dict() if key.startswith("segmentation_head.")}
    assert {key for key in net.load_report.missing if "num_batches_tracked" not in key} == {
        key for key in missing if "num_batches_tracked" not in key
    }
    assert net.segmentation_head.decoder.classifier.weight.std().item() == pytest.approx(0.01, rel=0.4)
    for norm in (module for module in net.segmentation_head.modules() if isinstance(module, nn.BatchNorm2d)):
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
        assert not norm.running_mean.any()


def test_sharing_the_encoder_keeps_the_heads_answer():
    net = tiny_net_with(BACKWARD)
    images = frames(1, 3, 50, 40)
    close(net.with_shared_encoder().segment(images).logits, net.segment(images).logits)
