"""UperNet's parts: the layout and the arithmetic of mmsegmentation's, its necks, and its auxiliary head."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from midway_hub.models.upernet import NECKS, AuxiliaryHead, Classifier, LateralNeck, PyramidNeck, build_upernet


def frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def randomise(module: nn.Module) -> nn.Module:
    """Give every weight and every running statistic a value that no other has."""
    for key, tensor in module.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.2)
    return module.eval()


def test_the_classifier_drops_whole_channels_in_training_only():
    classifier = Classifier(64, 64, dropout=0.5)
    with torch.no_grad():
        classifier.weight.copy_(torch.eye(64)[:, :, None, None])
    kept = classifier(torch.ones(1, 64, 4, 4))[0].flatten(1)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amin(1), kept.amax(1))
    torch.testing.assert_close(classifier.eval()(torch.ones(1, 64, 4, 4)), torch.ones(1, 64, 4, 4))


@pytest.mark.parametrize(("channels", "millions"), [(384, 17.0), (512, 29.1), (768, 63.1)])
def test_upernet_has_mmsegs_number_of_parameters(channels, millions):
    head = build_upernet(384, 19, channels=channels, pool_scales=(1, 2, 3, 6), dropout=0.1)
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == millions


def test_upernet_has_the_keys_and_shapes_of_mmsegs_layout():
    head = build_upernet(24, 3, channels=16, pool_scales=(1, 2, 3, 6), dropout=0.1)
    weights = {key: tuple(value.shape) for key, value in head.state_dict().items() if "batch_norm" not in key}
    assert weights == {
        **{f"psp_modules.{index}.1.conv.weight": (16, 24, 1, 1) for index in range(4)},
        "bottleneck.conv.weight": (16, 24 + 4 * 16, 3, 3),
        **{f"lateral_convs.{index}.conv.weight": (16, 24, 1, 1) for index in range(3)},
        **{f"fpn_convs.{index}.conv.weight": (16, 16, 3, 3) for index in range(3)},
        "fpn_bottleneck.conv.weight": (16, 4 * 16, 3, 3),
        "classifier.weight": (3, 16, 1, 1),
        "classifier.bias": (3,),
    }
    assert sum(isinstance(module, nn.BatchNorm2d) for module in head.modules()) == len(weights) - 2


def plain_upernet(weights: dict[str, torch.Tensor], maps: list[torch.Tensor]) -> torch.Tensor:
    """UperNet's head in evaluation as the paper and mmsegmentation define it, of functions alone."""

    def layer(name: str, x: torch.Tensor, padding: int = 0) -> torch.Tensor:
        mean, var = (weights[f"{name}.batch_norm.{key}"][:, None, None] for key in ("running_mean", "running_var"))
        gain, bias = (weights[f"{name}.batch_norm.{key}"][:, None, None] for key in ("weight", "bias"))
        x = F.conv2d(x, weights[f"{name}.conv.weight"], padding=padding)
        return torch.relu((x - mean) / torch.sqrt(var + 1e-5) * gain + bias)

    def resized(x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, size=to.shape[-2:], mode="bilinear", align_corners=False)

    coarsest = maps[3]
    pooled = [
        resized(layer(f"psp_modules.{index}.1", F.adaptive_avg_pool2d(coarsest, scale)), coarsest)
        for index, scale in enumerate((1, 2, 3, 6))
    ]
    top = layer("bottleneck", torch.cat([coarsest, *pooled], 1), padding=1)
    third = layer("lateral_convs.2", maps[2]) + resized(top, maps[2])
    second = layer("lateral_convs.1", maps[1]) + resized(third, maps[1])
    first = layer("lateral_convs.0", maps[0]) + resized(second, maps[0])
    fused = [layer(f"fpn_convs.{index}", x, padding=1) for index, x in enumerate((first, second, third))]
    joint = torch.cat([resized(x, maps[0]) for x in (*fused, top)], 1)
    last = layer("fpn_bottleneck", joint, padding=1)
    return F.conv2d(last, weights["classifier.weight"], weights["classifier.bias"])


@pytest.mark.parametrize("sizes", [[(28, 20), (14, 10), (7, 5), (3, 2)], [(7, 5)] * 4], ids=["pyramid", "all_at_1/16"])
def test_upernet_computes_what_its_definition_says(sizes):
    head = randomise(build_upernet(12, 3, channels=8, pool_scales=(1, 2, 3, 6), dropout=0.1)).double()
    maps = [frames(2, 12, *size, seed=seed).double() for seed, size in enumerate(sizes)]
    close(head(maps), plain_upernet(head.state_dict(), maps), rtol=1e-10, atol=1e-10)


def test_upernet_drops_channels_before_its_classifier_in_training():
    head = build_upernet(12, 3, channels=64, pool_scales=(1, 2), dropout=0.1)
    assert head.classifier.dropout == 0.1
    maps = [frames(2, 12, 4, 4, seed=seed) for seed in range(4)]
    seen = []
    head.fpn_bottleneck.register_forward_hook(lambda *call: seen.append(call[2]))
    logits = head.train()(maps)
    assert not torch.allclose(logits, F.conv2d(seen[0], head.classifier.weight, head.classifier.bias))


@pytest.mark.parametrize("neck", ["pyramid", "lateral"])
@pytest.mark.parametrize("grid", [(4, 6), (7, 5), (2, 2)])
def test_necks_make_maps_at_a_quarter_to_a_thirty_second_of_the_frame(neck, grid):
    maps = NECKS[neck](12)([frames(1, 12, *grid)] * 4)
    sizes = [tuple(math.floor(side * scale) for side in grid) for scale in (4, 2, 1, 0.5)]
    assert [tuple(m.shape) for m in maps] == [(1, 12, *size) for size in sizes]


def test_the_pyramid_neck_takes_each_map_from_its_own_layer():
    neck = PyramidNeck(12).eval()
    features = [frames(1, 12, 4, 6, seed=seed) for seed in range(4)]
    maps = neck(features)
    assert torch.equal(maps[2], features[2])
    assert torch.equal(maps[3], F.max_pool2d(features[3], 2))
    corner = torch.einsum("i,iokl->okl", features[1][0, :, 0, 0], neck.upsample_2x.weight)
    close(maps[1][0, :, :2, :2], corner + neck.upsample_2x.bias[:, None, None])
    assert [type(module) for module in neck.upsample_4x] == [
        nn.ConvTranspose2d,
        nn.BatchNorm2d,
        nn.GELU,
        nn.ConvTranspose2d,
    ]


def test_the_lateral_neck_is_linear_but_for_its_interpolation():
    neck = LateralNeck(6).double()
    features = [frames(1, 6, 4, 6, seed=seed).double() for seed in range(4)]
    for index, scale in enumerate((4, 2, 1, 0.5)):
        lateral, conv = neck.lateral_convs[index], neck.convs[index]
        wanted = F.conv2d(features[index], lateral.weight, lateral.bias)
        wanted = F.interpolate(wanted, scale_factor=scale, mode="bilinear")
        close(neck(features)[index], F.conv2d(wanted, conv.weight, conv.bias, padding=1))


def test_the_auxiliary_head_starts_as_in_mmsegmentation():
    auxiliary = AuxiliaryHead(64, 19)
    assert auxiliary.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.05)
    assert auxiliary.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
