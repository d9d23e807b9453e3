"""Frames one by one: the same numbers as together, every frame encoded once."""

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image

from midway_hub import MidwayImageProcessor, MotionStream
from midway_hub.dense.estimates import flow_between
from midway_hub.models.network import MissingHeadError

FLOW_HEAD = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 4, "tile": (32, 48)}


def frames(count: int, size: tuple[int, int] = (40, 56)) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8) for seed in range(count)]


@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_a_stream_tells_what_the_whole_clip_tells(target_network):
    net, clip = make_tiny_net(target_network=target_network), frames(4)
    stream = MotionStream(net)
    seen = [stream.push(frame) for frame in clip]
    with torch.no_grad():
        together = net(MidwayImageProcessor()(clips=clip)["pixel_values"])
    assert [each.number for each in seen] == [0, 1, 2, 3]
    assert seen[0].motion is None
    for number, each in enumerate(seen):
        torch.testing.assert_close(each.features.last, together.features.last[:, number], rtol=1e-4, atol=1e-5)
        if number:
            wanted = together.motion.pair(number - 1)
            torch.testing.assert_close(each.motion.latents[-1], wanted.latents[-1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(each.motion.predicted[0], wanted.predicted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("target_network", "passes"), [("ema", {"student": 4, "teacher": 4}), ("shared", {"student": 4})]
)
def test_every_frame_is_encoded_once_by_each_network(target_network, passes):
    net = make_tiny_net(target_network=target_network)
    counted = dict.fromkeys(passes, 0)
    for name in passes:

        def count(module, inputs, name=name):
            counted[name] += inputs[0].shape[0]

        getattr(net, name).patch_embed.register_forward_pre_hook(count)
    stream = MotionStream(net)
    for frame in frames(4):
        stream.push(frame)
    assert counted == passes


def test_flow_is_that_of_the_pair():
    net, clip = make_tiny_net(target_network="shared", flow_head=FLOW_HEAD), frames(4)
    stream = MotionStream(net, flow=True)
    flows = [stream.push(frame).flow for frame in clip]
    assert flows[0] is None
    for number in range(1, 4):
        wanted = flow_between(net, clip[number - 1 : number + 1])
        np.testing.assert_allclose(flows[number], wanted, rtol=1e-3, atol=1e-4)


def test_after_a_cut_the_next_frame_is_the_first_again():
    stream = MotionStream(make_tiny_net(target_network="shared", flow_head=FLOW_HEAD), flow=True)
    for frame in frames(3):
        stream.push(frame)
    stream.reset()
    first, second = (stream.push(frame) for frame in frames(2, size=(64, 32)))
    assert (first.number, first.motion, first.flow) == (0, None, None)
    assert second.flow.shape == (64, 32, 2)


def test_a_frame_of_another_size_is_refused_and_the_stream_goes_on():
    net = make_tiny_net(target_network="shared", flow_head=FLOW_HEAD)
    stream, (first, second) = MotionStream(net, flow=True), frames(2)
    stream.push(first)
    with pytest.raises(ValueError, match=r"frame 1 is 41×56 .* those before 40×56"):
        stream.push(frames(1, size=(41, 56))[0])
    np.testing.assert_allclose(stream.push(second).flow, flow_between(net, [first, second]), rtol=1e-3, atol=1e-4)


def test_an_encoder_alone_gives_features_without_motion():
    net = make_tiny_net(dynamics=False)
    stream = MotionStream(net)
    seen = [stream.push(Image.fromarray(frame)) for frame in frames(2)]
    assert [each.motion for each in seen] == [None, None]
    assert seen[1].features.last.shape == (1, 48, 3, 4)


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(MissingHeadError, match="no flow head"):
        MotionStream(make_tiny_net(), flow=True)
    with pytest.raises(ValueError, match="training mode"):
        MotionStream(make_tiny_net().train())
