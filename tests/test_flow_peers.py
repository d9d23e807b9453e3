"""Estimators of flow: the network, and the peers it is compared with."""

import builtins
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from evaluation_sets import shifted_pairs
from torchvision.models.optical_flow import Raft_Small_Weights

from midway_hub import MidwayNetwork
from midway_hub._regular import IrregularFileError
from midway_hub.flow_peers import DIS, RAFT, make_peer
from midway_hub.models.network import MissingHeadError
from midway_hub.processing import MidwayImageProcessor
from midway_hub.training.evaluation.flow.estimators import Resized, ZeroMotion, resize_flow
from midway_hub.training.evaluation.flow.networks import FeatureMatching, NetworkFlow
from midway_hub.training.evaluation.flow.peers import build_peers
from midway_hub.training.evaluation.weights import weights_digest

FLOW_HEAD = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 4, "tile": (32, 48)}


@pytest.fixture(scope="module")
def frames():
    sample = shifted_pairs(1, size=(45, 61))[0]
    return sample.first, sample.second


@pytest.fixture(scope="module")
def flow_net():
    return make_tiny_net(flow_head=FLOW_HEAD)


class Remembering:
    """An estimator that keeps what it was shown and answers with a constant flow."""

    def __init__(self, flow=(2.0, 1.0)):
        self.name, self.settings, self.flow, self.seen = "remembering", {"kind": "test"}, flow, None

    def __call__(self, first, second):
        self.seen = first, second
        return np.broadcast_to(np.float32(self.flow)[:, None, None], (2, *first.shape[:2])).copy()


def test_zero_motion_is_zero_at_the_size_of_the_frames(frames):
    estimate = ZeroMotion()(*frames)
    assert estimate.shape == (2, 45, 61)
    assert not estimate.any()


def test_the_network_estimates_what_flow_returns_for_normalised_frames(flow_net, frames):
    processor = MidwayImageProcessor(multiple=1)
    source, target = (processor(frame)["pixel_values"] for frame in frames)
    with torch.no_grad():
        expected = flow_net.flow(source, target).flow[0].numpy()
    np.testing.assert_allclose(NetworkFlow(flow_net)(*frames), expected, rtol=1e-4, atol=1e-4)


def test_tiles_and_overlap_reach_the_network_and_the_settings(flow_net, frames, monkeypatch):
    seen = {}
    flow = MidwayNetwork.flow
    monkeypatch.setattr(MidwayNetwork, "flow", lambda net, *pair, **how: seen.update(how) or flow(net, *pair, **how))
    estimator = NetworkFlow(flow_net, tile="training", overlap=0.7)
    assert estimator(*frames).shape == (2, 45, 61)
    assert seen == {"tile": (32, 48), "overlap": 0.7}
    assert (estimator.settings["tile"], estimator.settings["overlap"]) == ([32, 48], 0.7)


def test_tiles_without_an_overlap_are_stored_with_the_one_that_is_used(flow_net):
    assert NetworkFlow(flow_net, tile=(32, 32)).settings["overlap"] == 0.5
    assert NetworkFlow(flow_net).settings["overlap"] is None


def test_an_overlap_without_tiles_is_refused(flow_net):
    with pytest.raises(ValueError, match=r"overlap 0\.9 is of tiles, and none are asked for"):
        NetworkFlow(flow_net, overlap=0.9)


def test_a_network_without_a_flow_head_says_what_to_do(tiny_net):
    with pytest.raises(MissingHeadError, match=r"nameless has no flow head.*training flow RECIPE.*`matching`"):
        NetworkFlow(tiny_net, name="nameless")


def test_settings_tell_networks_of_other_weights_apart(flow_net):
    other = make_tiny_net(flow_head=FLOW_HEAD)
    assert weights_digest(other) == weights_digest(flow_net)
    with torch.no_grad():
        other.flow_head.dpt.get_parameter(next(name for name, _ in other.flow_head.dpt.named_parameters())).add_(1e-3)
    assert NetworkFlow(other).settings["sha256"] != NetworkFlow(flow_net).settings["sha256"]


def test_settings_say_precision_device_and_where_weights_came_from(tmp_path, flow_net):
    flow_net.save_pretrained(tmp_path / "saved")
    settings = NetworkFlow(MidwayNetwork.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)).settings
    assert (settings["dtype"], settings["device"]) == ("bfloat16", "cpu")
    assert "saved" in settings["weights"]
    assert NetworkFlow(flow_net).settings["weights"] == "in memory"


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"training mode.*call network\.eval\(\)"):
        NetworkFlow(make_tiny_net(flow_head=FLOW_HEAD).train())


def test_a_bfloat16_network_gives_float32_numbers(frames):
    estimate = NetworkFlow(make_tiny_net(flow_head=FLOW_HEAD).to(torch.bfloat16))(*frames)
    assert estimate.dtype == np.float32


def test_resized_frames_have_the_short_side_and_keep_their_proportions():
    seen = Remembering()
    Resized(seen, 20)(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60, 3), np.uint8))
    assert [frame.shape for frame in seen.seen] == [(20, 30, 3)] * 2


def test_flow_of_resized_frames_is_scaled_to_the_frames_own_pixels():
    estimator = Resized(Remembering((2.0, 1.0)), 20)
    estimate = estimator(np.zeros((40, 61, 3), np.uint8), np.zeros((40, 61, 3), np.uint8))
    assert estimate.shape == (2, 40, 61)
    np.testing.assert_allclose(estimate[0], 2 * 61 / 30, rtol=1e-6)
    np.testing.assert_allclose(estimate[1], 1 * 40 / 20, rtol=1e-6)
    assert estimator.settings == {"kind": "test", "short_side": 20}


def test_resized_flow_that_grows_linearly_goes_on_doing_so():
    ramp = np.stack([np.tile(np.arange(8.0), (6, 1)), np.zeros((6, 8))]).astype(np.float32)
    larger = resize_flow(ramp, (12, 16))
    expected = 2 * (((np.arange(16) + 0.5) / 2) - 0.5)
    np.testing.assert_allclose(larger[0, :, 1:-1], np.tile(expected[1:-1], (12, 1)), rtol=1e-5)


def test_a_short_side_below_one_is_refused():
    with pytest.raises(ValueError, match="short_side must be at least 1 pixel, got 0"):
        Resized(ZeroMotion(), 0)


def test_dis_finds_a_translation():
    pytest.importorskip("cv2")
    sample = shifted_pairs(1, shift=(3, -2), size=(70, 66))[0]
    estimate = DIS()(sample.first, sample.second)
    assert estimate.dtype == np.float32
    np.testing.assert_allclose(np.median(estimate, axis=(1, 2)), (3, -2), atol=0.2)


def test_dis_without_opencv_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "cv2":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'midway-hub\[peers\]'"):
        DIS()


def test_dis_of_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ValueError, match="ultrafast, fast, medium, got 'slow'"):
        DIS("slow")


def test_raft_equals_torchvision_on_frames_that_need_no_padding():
    from torchvision.transforms.functional import to_tensor

    sample = shifted_pairs(1, size=(64, 64))[0]
    first, second = (np.tile(frame, (2, 2, 1)) for frame in (sample.first, sample.second))
    estimator = RAFT("small", updates=2)
    with torch.no_grad():
        expected = estimator.network(*(to_tensor(x)[None] * 2 - 1 for x in (first, second)), num_flow_updates=2)[-1]
    np.testing.assert_allclose(estimator(first, second), expected[0].numpy(), rtol=1e-3, atol=1e-3)


def test_raft_takes_frames_of_any_size_and_pads_by_their_edge(frames):
    estimator = RAFT("small", updates=1)
    estimate = estimator(*frames)
    padded = [np.pad(frame, ((0, 128 - 45), (0, 128 - 61), (0, 0)), mode="edge") for frame in frames]
    assert estimate.shape == (2, 45, 61)
    np.testing.assert_allclose(estimate, estimator(*padded)[:, :45, :61], rtol=1e-4, atol=1e-4)


def test_raft_with_random_weights_says_so_and_is_the_same_every_time():
    torch.manual_seed(5)
    first = RAFT("small")
    state = torch.random.get_rng_state()
    second = RAFT("small")
    assert first.name == "raft_small (random weights)"
    assert first.settings["weights"] == "random weights (seed 0)"
    assert weights_digest(first.network) == weights_digest(second.network)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_raft_takes_a_file_of_weights_and_stores_its_checksum(tmp_path):
    source = RAFT("small").network
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(0.9)
    torch.save(source.state_dict(), tmp_path / "raft.pth")
    estimator = RAFT("small", weights=tmp_path / "raft.pth")
    assert weights_digest(estimator.network) == weights_digest(source)
    assert estimator.name == "raft_small"
    assert estimator.settings["weights"] == "raft.pth"
    assert len(estimator.settings["sha256"]) == 64


def test_weights_of_another_raft_are_refused(tmp_path):
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "raft.pth")
    with pytest.raises(ValueError, match=r"raft\.pth does not hold the weights of this RAFT"):
        RAFT("small", weights=tmp_path / "raft.pth")
    with pytest.raises(FileNotFoundError, match=r"no weights of RAFT at .*none\.pth"):
        RAFT("small", weights=tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["raft.pth", "raft.safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk\n", b"PK\x03\x04 no archive"])
def test_damaged_weights_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} does not hold the weights of this RAFT, or is damaged: \w"):
        RAFT("small", weights=tmp_path / name)


def test_weights_that_are_a_pipe_are_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "raft.pth")
    with pytest.raises(IrregularFileError, match=r"raft\.pth is a named pipe"):
        make_peer(f"raft_small={tmp_path / 'raft.pth'}")


def test_dis_says_which_frames_are_too_small_for_it():
    pytest.importorskip("cv2")
    tiny = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(ValueError, match=r"dis does not take frames of 8×9 \(height×width\): .*12"):
        DIS()(tiny, tiny)


class PixelNet(MidwayNetwork):
    """A network whose features are the pixels of each patch, so that whole-patch shifts match exactly."""

    def encode(self, images, **options):
        features = super().encode(images, **options)
        patches = torch.nn.functional.pixel_unshuffle(images, self.config.patch_size)
        return type(features)(last=patches, cls=features.cls, layers=(), grid=features.grid)


def test_matching_finds_a_translation_by_whole_patches():
    net = make_tiny_net()
    net.__class__ = PixelNet
    wide = np.random.default_rng(0).integers(0, 256, (64, 112, 3)).astype(np.uint8)
    estimate = FeatureMatching(net)(wide[:, 16:], wide[:, :96])
    np.testing.assert_allclose(estimate[0, :, :72], 16)  # up to the centre of the last patch that is still seen
    np.testing.assert_allclose(estimate[1, :, :72], 0)


def test_matching_takes_frames_of_any_size(tiny_net):
    sample = shifted_pairs(1, size=(40, 61))[0]
    estimate = FeatureMatching(tiny_net)(sample.first, sample.second)
    assert estimate.shape == (2, 40, 61)
    assert np.isfinite(estimate).all()


def test_matching_is_smooth_between_the_centres_of_patches(tiny_net, frames):
    estimate = FeatureMatching(tiny_net)(*frames)
    corners, along = estimate[:, 8:40:16, 8:40:16].max(), np.abs(np.diff(estimate, axis=2)).max()
    assert corners > 0
    assert along <= 2 * np.abs(estimate).max() / 16 + 1e-4


def test_peers_are_built_by_name_in_order(tiny_net):
    pytest.importorskip("cv2")
    peers = build_peers(["matching", "zero", "raft_small=random", "dis"], network=tiny_net)
    assert [peer.name for peer in peers] == ["matching", "zero", "raft_small (random weights)", "dis"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["raft"], "there is no peer 'raft'; there are: zero, matching, dis, raft_large, raft_small, ptlflow:NAME"),
        (["matching"], "matching compares features of a network; give a model"),
        (["zero=file.pth"], "the peer zero takes no weights"),
        (["raft_large"], r"raft_large needs weights, and there are none at .*raft_large_C_T_SKHT_V2-\w+\.pth: name a"),
        (["zero", "raft_small"], "raft_small needs weights"),
    ],
)
def test_peers_that_cannot_be_built_say_why(names, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        build_peers(names)


def test_raft_takes_the_weights_that_torchvision_has_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub/checkpoints" / Path(Raft_Small_Weights.DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    torch.save(RAFT("small").network.state_dict(), cached)
    (peer,) = build_peers(["raft_small"])
    assert peer.name == "raft_small"
    assert peer.settings["weights"] == cached.name


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that publishes bytes as torchvision's weights of raft_small, from a file instead of its server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    def publish(content, digest=None):
        file = tmp_path / f"raft_small-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
        file.write_bytes(content)
        monkeypatch.setattr(Raft_Small_Weights.DEFAULT.value, "url", file.as_uri())
        return file

    return publish


def test_torchvision_downloads_the_weights_of_raft_once(tmp_path, published):
    torch.save(RAFT("small").network.state_dict(), tmp_path / "state.pth")
    file = published((tmp_path / "state.pth").read_bytes())
    with pytest.raises(ValueError, match="raft_small needs weights, and there are none"):
        make_peer("raft_small")
    peer = make_peer("raft_small", download=True)
    assert peer.settings["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    assert make_peer("raft_small").settings == peer.settings


def test_weights_that_cannot_be_downloaded_are_a_sentence(published):
    published(b"").unlink()
    with pytest.raises(ValueError, match=r"file://.* cannot be downloaded \(.*No such file.*\): name a file"):
        make_peer("raft_small", download=True)


def test_weights_that_are_not_the_published_ones_are_not_kept(tmp_path, published):
    published(b"something else", digest="00000000")
    with pytest.raises(ValueError, match="cannot be downloaded"):
        make_peer("raft_small", download=True)
    assert not list((tmp_path / "home").rglob("*.pth"))


def test_a_model_of_ptlflow_gives_flow_at_the_frames_size_and_is_the_same_every_time(frames):
    pytest.importorskip("ptlflow")
    large = [np.tile(frame, (4, 4, 1)) for frame in frames]
    first, second = make_peer("ptlflow:raft_small=random"), make_peer("ptlflow:raft_small=random")
    estimate = first(*large)
    assert (estimate.shape, estimate.dtype) == ((2, 180, 244), np.float32)
    assert first.name == "ptlflow:raft_small (random weights)"
    np.testing.assert_allclose(second(*large), estimate, rtol=1e-4, atol=1e-4)


def test_every_peer_stores_the_resolution_it_looks_at(tiny_net, flow_net):
    estimators = [NetworkFlow(flow_net), FeatureMatching(tiny_net), RAFT("small")]
    assert all(estimator.settings["short_side"] is None for estimator in estimators)
    assert all(Resized(estimator, 64).settings["short_side"] == 64 for estimator in estimators)
