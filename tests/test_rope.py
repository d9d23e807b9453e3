"""Encoders with rotary positions and registers: what the options do, against formulas written down anew."""

import pytest
import torch

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.analysis.attention import cls_attention
from midway_hub.models.rope import grid_places, rotated, rotation

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 4, "image_size": 32, "patch_size": 8, "dynamics": False}


def network(**options):
    torch.manual_seed(0)
    return MidwayNetwork(MidwayConfig(**SMALL, target_network="shared", **options)).eval()


def test_a_pair_of_numbers_turns_by_its_place_and_its_wavelength():
    heads = torch.randn(1, 1, 3, 8, dtype=torch.float64)
    places = torch.tensor([[0, 0], [2, 5], [7, 1]])
    found = rotated(heads, rotation(places, 8).double())[0, 0]
    for token, place in enumerate(places.tolist()):
        for half, coordinate in enumerate(place):  # rows turn the first half, columns the second
            for i in range(2):
                pair = heads[0, 0, token, [4 * half + i, 4 * half + 2 + i]]
                angle = torch.tensor(coordinate * 100.0 ** (-2 * i / 4), dtype=torch.float64)
                turned = torch.stack(
                    [pair[0] * angle.cos() - pair[1] * angle.sin(), pair[1] * angle.cos() + pair[0] * angle.sin()]
                )
                torch.testing.assert_close(found[token, [4 * half + i, 4 * half + 2 + i]], turned, rtol=0, atol=1e-5)


def test_products_of_turned_queries_and_keys_depend_on_the_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)
    near, far = (torch.tensor([[2, 3], [4, 8]]) + shift for shift in (0, 11))

    def product(places):
        angles = rotation(places, 16).double()
        return (rotated(query, angles[:1]) * rotated(key, angles[1:])).sum()

    torch.testing.assert_close(product(near), product(far), rtol=1e-4, atol=1e-5)


def test_places_of_a_grid_are_rows_and_columns():
    assert grid_places((2, 3), torch.device("cpu")).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_a_network_of_rotary_positions_has_no_others_and_takes_any_size():
    net = network(positions="rope")
    assert net.student.pos_embed is None
    assert net.encode(torch.randn(2, 3, 40, 24)).last.shape == (2, 48, 5, 3)
    assert cls_attention(net, torch.randn(1, 3, 40, 24)).shape == (1, 4, 5, 3)


def test_the_network_sees_where_its_patches_are():
    net = network(positions="rope", initializer_range=0.2)
    image = torch.randn(1, 3, 32, 32)
    swapped = image.flip(-1).unflatten(-1, (4, 8)).flip(-1).flatten(-2)  # patches mirrored, not their contents
    ours, theirs = net.encode(image).last, net.encode(swapped).last.flip(-1)
    assert (ours - theirs).abs().max() > 1e-3


def test_registers_are_used_and_not_shown():
    net = network(num_registers=3, initializer_range=0.2)
    image = torch.randn(1, 3, 32, 32)
    features = net.encode(image, output_format="tokens")
    assert features.last.shape == (1, 17, 48)
    with torch.no_grad():
        net.student.reg_token.copy_(torch.randn(1, 3, 48))
    assert (net.encode(image, output_format="tokens").last - features.last).abs().max() > 1e-3
    assert cls_attention(net, image).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("options", [{"positions": "rope"}, {"num_registers": 2, "layer_scale": 1e-5}])
def test_such_networks_are_saved_and_loaded(tmp_path, options):
    net = network(**options)
    net.save_pretrained(tmp_path)
    loaded, image = MidwayNetwork.from_pretrained(tmp_path), torch.randn(1, 3, 32, 32)
    assert {name: getattr(loaded.config, name) for name in options} == options
    torch.testing.assert_close(loaded.encode(image).last, net.encode(image).last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "sines"}, "positions must be one of"),
        ({"positions": "rope", "num_heads": 8}, "turn heads of a multiple of 4 numbers"),
        ({"num_registers": -1}, "num_registers must be a whole number from 0 to 1024, got -1"),
        ({"num_registers": True}, "num_registers must be"),
        ({"layer_scale": 0}, "layer_scale must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MidwayConfig(**{**SMALL, **options})
