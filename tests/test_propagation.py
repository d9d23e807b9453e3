"""Carrying labels through videos: by hand on toy grids, on real frames, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_tiny_net
from picture_bytes import write_png
from PIL import Image
from typer.testing import CliRunner
from video_clips import write_clip

from midway_hub.analysis.propagation import propagate_labels, propagate_maps
from midway_hub.analysis.propagation_features import network_features
from midway_hub.analysis.propagation_keypoints import keypoint_seeds, propagate_keypoints, read_keypoints
from midway_hub.analysis.propagation_maps import label_seeds, read_labels
from midway_hub.analysis.propagation_pictures import draw_keypoints, object_palette, overlay_objects
from midway_hub.analysis.propagation_protocols import CROPMAE, DINO, FrameSize, adjusted, find_protocol
from midway_hub.cli import app
from midway_hub.dense.propagated_files import open_frames
from midway_hub.label_maps import read_label_map
from midway_hub.video import open_video

SMALL = replace(DINO, size=FrameSize("exact", (64, 96)))
EVERYWHERE = replace(DINO, radius=None, context=1, top_k=2)


def grid_of(vectors, height, width):
    """Features (D, h, w) of patches given row by row."""
    return torch.tensor(vectors, dtype=torch.float32).T.reshape(-1, height, width)


def by_colour(frames):
    """An encoder whose features are a patch's mean colour, its square, and a constant."""
    shades = F.avg_pool2d(frames, 16)
    return torch.cat([shades, shades**2, torch.ones_like(shades[:, :1])], dim=1)


def by_pixels(frames):
    """An encoder whose features are the patch itself, less its mean."""
    pixels = F.unfold(frames, 16, stride=16).unflatten(2, (frames.shape[-2] // 16, frames.shape[-1] // 16))
    return pixels - pixels.mean(dim=1, keepdim=True)


def by_place(frames):
    """An encoder whose features are the place alone: every patch is like itself and unlike all others."""
    height, width = frames.shape[-2] // 16, frames.shape[-1] // 16
    return torch.eye(height * width).unflatten(0, (1, height, width)).permute(0, 3, 1, 2)


def brute_force(features, seeds, protocol):
    """Soft labels (T, C, h, w) in float64, patch by patch as the protocol is worded."""
    features = [F.normalize(f.double(), dim=0) for f in features]
    height, width = seeds.shape[-2:]
    found = [seeds.double()]
    for now in range(1, len(features)):
        before = list(range(max(1, now - protocol.context), now))
        if protocol.repeat_first:
            before += [0] * (protocol.context - len(before))
        soft = torch.zeros_like(found[0])
        for y in range(height):
            for x in range(width):
                seen = []
                for place, frame in enumerate([0, *before]):
                    for v in range(height):
                        for u in range(width):
                            if protocol.neighbourhood == "square":
                                near = max(abs(v - y), abs(u - x)) <= protocol.radius
                            else:
                                near = np.hypot(v - y, u - x) < protocol.radius
                            if near or (place == 0 and protocol.first_everywhere):
                                likeness = float(features[now][:, y, x] @ features[frame][:, v, u])
                                seen.append((likeness, found[frame][:, v, u]))
                seen = sorted(seen, key=lambda pair: -pair[0])[: protocol.top_k]
                weights = np.exp(np.array([likeness for likeness, _ in seen]) / protocol.temperature)
                soft[:, y, x] = sum(w * label for w, (_, label) in zip(weights / weights.sum(), seen, strict=True))
        found.append(soft)
    return torch.stack(found)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_a_patch_takes_the_labels_of_the_two_most_similar_patches_by_a_softmax():
    first = grid_of([[1, 0], [0, 1], [-1, 0], [0, -1]], 2, 2)
    second = grid_of([[3, 0], [0, 0.5], [-2, 0], [1, 1]], 2, 2)
    seeds = torch.tensor([[[1.0, 0], [0, 0]], [[0, 1], [1, 1]]])
    _, soft = propagate_maps([first, second], seeds, EVERYWHERE)
    share = np.exp(10) / (np.exp(10) + 1)  # similarities 1 and 0 at temperature 0.1
    # second-best are the two perpendicular ones, of which either may be taken: of patch 0 both have label 1
    assert soft[0, 0, 0].item() == pytest.approx(share, abs=1e-6)
    # the last patch lies between the first two: half of either label
    np.testing.assert_allclose(soft[:, 1, 1], [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(soft.sum(dim=0), np.ones((2, 2)), atol=1e-6)


def test_the_length_of_features_does_not_matter():
    features = torch.randn(3, 5, 4, 6)
    seeds = torch.rand(2, 4, 6)
    plain = torch.stack(list(propagate_maps(features, seeds, DINO)))
    scaled = torch.stack(list(propagate_maps(features * torch.rand(3, 1, 4, 6).add(0.1) * 30, seeds, DINO)))
    torch.testing.assert_close(plain, scaled)


@pytest.mark.parametrize(
    "protocol",
    [
        replace(DINO, radius=1, context=2),
        replace(DINO, radius=0, top_k=9),
        replace(CROPMAE, radius=2, context=3),
        replace(CROPMAE, radius=1.5, context=2, first_everywhere=False),
        replace(CROPMAE, radius=1.2, context=0, top_k=1000),
    ],
    ids=["square", "own place", "disc", "disc in the first frame", "no context"],
)
def test_the_rules_are_those_of_an_independent_loop(protocol):
    features, seeds = torch.randn(5, 6, 3, 4), torch.rand(3, 3, 4)
    found = torch.stack(list(propagate_maps(features, seeds, protocol)))
    torch.testing.assert_close(found.double(), brute_force(features, seeds, protocol), atol=1e-5, rtol=0)


@pytest.mark.parametrize("protocol", [DINO, CROPMAE], ids=lambda protocol: protocol.name)
def test_chunks_give_what_one_piece_gives(protocol):
    features, seeds = torch.randn(4, 6, 5, 7), torch.rand(2, 5, 7)
    whole = torch.stack(list(propagate_maps(features, seeds, protocol)))
    chunked = torch.stack(list(propagate_maps(features, seeds, protocol, pairs=1)))
    torch.testing.assert_close(whole, chunked)


def test_no_more_similarities_than_allowed_are_in_memory(monkeypatch):
    sizes = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, *a, **k: sizes.append(self.numel()) or topk(self, *a, **k))
    list(propagate_maps(torch.randn(6, 4, 8, 8), torch.rand(2, 8, 8), CROPMAE, pairs=64 * 21 * 10))
    assert max(sizes) == 64 * 21 * 10
    assert sum(sizes) == 5 * 64 * 64 * 21


# -- radius and context ------------------------------------------------------------------------------------------------


def test_beyond_the_radius_nothing_is_seen():
    """The most similar patch is at the other end of a row; only without a radius is its label taken."""
    first, second = torch.eye(8)[:, None], torch.eye(8)[:, None].flip(2)
    seeds = torch.arange(8.0).view(1, 1, 8)
    sharp = replace(DINO, top_k=1, context=0)
    _, anywhere = propagate_maps([first, second], seeds, replace(sharp, radius=None))
    assert anywhere[0, 0, 0] == 7
    _, nearby = propagate_maps([first, second], seeds, replace(sharp, radius=3))
    assert nearby[0, 0, 0] <= 3
    _, exact = propagate_maps([first, second], seeds, replace(sharp, radius=7))
    assert exact[0, 0, 0] == 7


def test_a_disc_leaves_out_what_is_exactly_as_far_as_its_radius_and_a_square_does_not():
    first, second = torch.eye(4)[:, None], torch.eye(4)[:, None].flip(2)
    seeds = torch.arange(4.0).view(1, 1, 4)
    square = replace(DINO, radius=3, top_k=1)
    assert list(propagate_maps([first, second], seeds, square))[1][0, 0, 0] == 3
    disc = replace(square, neighbourhood="disc")
    assert list(propagate_maps([first, second], seeds, disc))[1][0, 0, 0] < 3


def remembers(frames_between):
    """Whether what only frame 1 showed is known after some frames that show something else."""
    axes = torch.eye(3)
    start = grid_of([axes[0].tolist(), axes[1].tolist()], 1, 2)  # labels 0 and 1
    shown = grid_of([[0, 0.6, 0.8], [1, 0, 0]], 1, 2)  # on the left something new, most like label 1
    between = grid_of([[1, 0, 0], [1, 0, 0]], 1, 2)  # all label 0
    again = grid_of([[0.6, 0, 0.8], [1, 0, 0]], 1, 2)  # most like what frame 1 showed, then like label 0
    seeds = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    *_, last = propagate_maps([start, shown, *[between] * frames_between, again], seeds, replace(DINO, top_k=1))
    return bool(last[1, 0, 0] > 0.5)


def test_seven_frames_are_remembered_and_no_more():
    assert remembers(0)
    assert remembers(6)
    assert not remembers(7)


def test_the_first_frame_is_never_forgotten():
    start, other = grid_of([[1, 0, 0], [0, 1, 0]], 1, 2), grid_of([[1, 0, 0.1], [1, 0, 0.1]], 1, 2)
    again = grid_of([[0, 1, 0], [0, 1, 0]], 1, 2)
    seeds = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    *_, last = propagate_maps([start, *[other] * 30, again], seeds, replace(DINO, top_k=1))
    assert (last[1] > 0.5).all()


def test_copies_of_the_first_frame_fill_the_context_where_the_protocol_says_so():
    features, seeds = torch.randn(2, 5, 3, 4), torch.eye(12).unflatten(1, (3, 4))
    _, alone = propagate_maps(features, seeds, replace(DINO, top_k=5, context=4, radius=None))
    _, copied = propagate_maps(features, seeds, replace(DINO, top_k=5, context=4, radius=None, repeat_first=True))
    assert ((alone > 0).sum(dim=0) == 5).all()
    assert ((copied > 0).sum(dim=0) == 1).all()  # the five nearest are one patch, five times
    assert torch.equal(alone.argmax(dim=0), copied.argmax(dim=0))


def test_more_neighbours_than_there_are_is_all_of_them():
    features, seeds = torch.randn(3, 5, 2, 2), torch.rand(2, 2, 2)
    many = list(propagate_maps(features, seeds, replace(EVERYWHERE, top_k=10_000)))
    every = list(propagate_maps(features, seeds, replace(EVERYWHERE, top_k=8)))
    torch.testing.assert_close(torch.stack(many), torch.stack(every))


# -- label maps --------------------------------------------------------------------------------------------------------


def test_the_pixel_at_the_centre_of_a_patch_gives_its_label():
    labels = torch.zeros(48, 48, dtype=torch.uint8)
    labels[24, 24] = 3
    seeds = label_seeds(labels, [0, 3], (48, 48), (3, 3), how="nearest")
    assert seeds[1].nonzero().tolist() == [[1, 1]]
    assert torch.equal(seeds.sum(dim=0), torch.ones(3, 3))


def test_bilinear_seeds_are_the_shares_of_the_four_pixels_at_the_centre():
    cv2 = pytest.importorskip("cv2")
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (48, 80)).astype(np.uint8))
    seeds = label_seeds(labels, [0, 1, 2], (48, 80), (3, 5), how="bilinear")
    one_hot = np.stack([labels.numpy() == label for label in range(3)], axis=-1).astype(np.float32)
    np.testing.assert_allclose(seeds.permute(1, 2, 0), cv2.resize(one_hot, (5, 3)), atol=1e-6)


def test_soft_labels_are_upsampled_before_the_largest_is_taken():
    cv2 = pytest.importorskip("cv2")
    soft = torch.rand(3, 4, 6)
    found = read_labels(soft, [2, 5, 9], (64, 96), (64, 96), normalise=False)
    expected = np.array([2, 5, 9])[cv2.resize(soft.permute(1, 2, 0).numpy(), (96, 64)).argmax(axis=-1)]
    assert (found == expected).mean() > 0.999


def test_normalising_gives_a_faint_object_the_weight_of_a_strong_one():
    soft = torch.tensor([[[1.0, 0.9, 0.8, 0.7]], [[0.0, 0.1, 0.2, 0.3]]])
    assert set(read_labels(soft, [0, 1], (16, 64), (16, 64), normalise=False).ravel()) == {0}
    stretched = read_labels(soft, [0, 1], (16, 64), (16, 64), normalise=True)
    assert (stretched[:, :31] == 0).all()
    assert (stretched[:, 33:] == 1).all()


def test_a_label_of_which_nothing_is_left_is_never_given():
    soft = torch.stack([torch.full((2, 2), 0.1), torch.zeros(2, 2)])
    soft[0, 0, 0] = 0.2
    assert set(read_labels(soft, [0, 1], (32, 32), (32, 32), normalise=True).ravel()) == {0}


# -- whole videos ------------------------------------------------------------------------------------------------------


def half_and_half(height=64, width=96, left=0, right=1):
    labels = np.full((height, width), left, np.uint8)
    labels[:, width // 2 :] = right
    return labels


@pytest.mark.parametrize("protocol", [SMALL, replace(CROPMAE, size=SMALL.size)], ids=lambda protocol: protocol.name)
def test_labels_stay_where_they_are_in_a_video_of_identical_frames(protocol):
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    labels = half_and_half()
    found = list(propagate_labels(by_place, [frame] * 9, labels, protocol))
    assert len(found) == 9
    for labels_of_frame in found:
        np.testing.assert_array_equal(labels_of_frame, labels)


def test_an_object_that_moves_by_whole_patches_is_followed_exactly():
    generator = np.random.default_rng(0)
    world = np.kron(generator.integers(0, 256, (4, 13, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    truth = np.zeros((64, 208), np.uint8)
    truth[:, 64:96] = 7
    frames = [world[:, 16 * step : 16 * step + 160] for step in range(4)]
    sharp = replace(DINO, size=FrameSize("exact", (64, 160)), temperature=1e-4, top_k=1)
    for step, found in enumerate(propagate_labels(by_colour, frames, truth[:, :160], sharp)):
        known = 160 - 16 * step - 8  # what comes into view on the right is like nothing that was seen
        np.testing.assert_array_equal(found[:, :known], truth[:, 16 * step :][:, :known])


def test_numbers_with_holes_come_back_as_they_are_and_unknown_pixels_are_not_carried():
    labels = half_and_half(left=3, right=200)
    labels[:16] = 255
    frame = np.zeros((64, 96, 3), np.uint8)
    first, second = propagate_labels(by_place, [frame] * 2, labels, SMALL)
    np.testing.assert_array_equal(first, labels)
    assert set(np.unique(second)) == {3, 200}
    np.testing.assert_array_equal(second[24:], labels[24:])


def test_the_first_frame_is_given_back_or_read_off_the_patch_grid_as_the_protocol_says():
    labels = half_and_half()
    labels[30:34, 10:14] = 1  # too small for the patch grid
    frame = np.zeros((64, 96, 3), np.uint8)
    given = next(propagate_labels(by_place, [frame], labels, SMALL))
    read = next(propagate_labels(by_place, [frame], labels, replace(SMALL, first_frame="seeds")))
    np.testing.assert_array_equal(given, labels)
    np.testing.assert_array_equal(read, half_and_half())


@pytest.mark.parametrize("size", [(67, 101), (33, 200), (16, 16), (121, 50)])
def test_frames_of_any_size_get_labels_of_that_size(size, tiny_net):
    labels = half_and_half(*size)
    frames = [np.random.default_rng(n).integers(0, 256, (*size, 3), dtype=np.uint8) for n in range(2)]
    small = replace(DINO, size=FrameSize("short", 64, 32))
    for found in propagate_labels(network_features(tiny_net), frames, labels, small):
        assert found.shape == size
        assert found.dtype == np.uint8


def test_frames_are_read_one_by_one():
    frame, read = np.zeros((64, 96, 3), np.uint8), []

    def frames():
        for number in range(5):
            read.append(number)
            yield frame

    found = propagate_labels(by_place, frames(), half_and_half(), SMALL)
    for number in range(3):
        next(found)
        assert read == list(range(number + 1))


def test_frames_come_to_the_encoder_at_the_protocols_size_and_normalised():
    seen = []
    grey = np.full((50, 70, 3), 128, np.uint8)
    exact = replace(find_protocol("dino_as_released"), size=FrameSize("exact", (32, 48)))
    list(propagate_labels(lambda x: seen.append(x) or by_place(x), [grey], half_and_half(50, 70), exact))
    assert seen[0].shape == (1, 3, 32, 48)
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.228, 0.224, 0.225])
    np.testing.assert_allclose(seen[0][0, :, 0, 0], expected, rtol=1e-4)


def test_resizing_is_opencvs_bilinear_one(shared):
    cv2 = pytest.importorskip("cv2")
    file = shared / "data/davis/JPEGImages/480p/judo/00000.jpg"
    seen, labels = [], half_and_half(480, 854)
    protocol = replace(CROPMAE, size=FrameSize("exact", (240, 432)))
    list(propagate_labels(lambda x: seen.append(x) or by_place(x), [file], labels, protocol))
    frame = np.asarray(Image.open(file), dtype=np.float32) / 255
    expected = (cv2.resize(frame, (432, 240)) - protocol.image_mean) / protocol.image_std
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0), expected, atol=2e-3)


def test_any_model_of_timms_propagates():
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=24, depth=2, num_heads=2, dynamic_img_size=True).eval()

    def encode(frames):
        return vit.forward_intermediates(frames, indices=[-1], intermediates_only=True)[0]

    frames = [np.random.default_rng(n).integers(0, 256, (64, 96, 3), dtype=np.uint8) for n in range(3)]
    assert len(list(propagate_labels(encode, frames, half_and_half(), SMALL))) == 3


# -- features of networks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    return make_tiny_net()


def test_features_are_those_of_the_encoder_and_block_that_are_asked_for(net):
    frames = torch.randn(1, 3, 32, 48)
    for network in ("teacher", "student"):
        expected = net.encode(frames, layers=[3], network=network).layers[0]
        torch.testing.assert_close(network_features(net, network, layer=3)(frames), expected)
    torch.testing.assert_close(network_features(net)(frames), net.encode(frames).last)


@pytest.mark.parametrize(("layer", "place"), [(-1, -1), (8, 0), (5, 1)])
def test_backward_features_are_those_of_the_target_of_any_pair(net, layer, place):
    source, target = torch.randn(2, 1, 3, 32, 48)
    tokens = net.infer_motion(source, target).target[place]
    expected = tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(network_features(net, "backward", layer=layer)(target), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("source", "layer", "wanted"),
    [
        ("encoder", -1, "teacher, student, backward, got 'encoder'"),
        ("teacher", 12, "from 0 to 11"),
        ("backward", 3, "levels 8, 5, 2"),
    ],
)
def test_features_that_do_not_exist_are_refused(net, source, layer, wanted):
    with pytest.raises(ValueError, match=wanted):
        network_features(net, source, layer=layer)


def test_backward_features_of_an_encoder_alone_are_refused():
    with pytest.raises(ValueError, match="encoder alone"):
        network_features(make_tiny_net(dynamics=False), "backward")


# -- keypoints ---------------------------------------------------------------------------------------------------------


def test_a_keypoint_is_a_gaussian_of_half_a_patch_around_its_patch():
    seeds = keypoint_seeds(torch.tensor([[2.4, 1.6]]), (5, 6))[0]
    assert seeds[2, 2] == 1
    np.testing.assert_allclose(seeds[1:4, 1:4].numpy()[0], np.exp([-4, -2, -4]), rtol=1e-6)
    assert seeds.count_nonzero() == 9


def test_the_place_of_a_keypoint_is_the_mean_of_its_strongest_patches():
    soft = torch.zeros(1, 4, 5)
    soft[0, 1, 1], soft[0, 1, 2], soft[0, 3, 4], soft[0, 0, 0] = 0.6, 0.2, 0.2, 0.1
    found = read_keypoints(soft, patches=3)[0]
    np.testing.assert_allclose(found, [0.6 * 1 + 0.2 * 2 + 0.2 * 4, 0.6 * 1 + 0.2 * 1 + 0.2 * 3], rtol=1e-6)


def test_keypoints_stay_where_they_are_in_a_video_of_identical_frames():
    frame = np.zeros((120, 200, 3), np.uint8)
    protocol = replace(find_protocol("cropmae", dataset="jhmdb"), size=FrameSize("exact", (96, 96)), temperature=0.01)
    points = np.array([[100.0, 60.0], [33.0, 20.0]])  # at patches (3, 3) and (1, 1) of 6×6
    for found in propagate_keypoints(by_place, [frame] * 4, points, protocol):
        assert found.shape == (2, 2)
        np.testing.assert_allclose(found, [[100, 60], [33.3, 20]], atol=0.5)


def test_a_keypoint_outside_of_the_first_frame_is_lost():
    frame = np.zeros((96, 96, 3), np.uint8)
    protocol = replace(DINO, size=FrameSize("exact", (96, 96)))
    points = np.array([[-200.0, 10.0], [48.0, 48.0]])
    _, found = propagate_keypoints(by_place, [frame] * 2, points, protocol)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


# -- protocols ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "frame", "size"),
    [
        (DINO, (480, 854), (480, 832)),
        (DINO, (1080, 1920), (480, 832)),
        (DINO, (1280, 720), (832, 480)),
        (CROPMAE, (480, 854), (480, 880)),
        (find_protocol("cropmae", dataset="vip"), (720, 1280), (448, 880)),
        (find_protocol("cropmae", dataset="vip"), (1280, 720), (880, 448)),
        (find_protocol("cropmae", dataset="jhmdb"), (240, 320), (320, 320)),
        (replace(DINO, size=FrameSize("long", 128)), (10, 1000), (64, 128)),
    ],
)
def test_the_networks_input_has_the_published_size(protocol, frame, size):
    assert protocol.size.of(*frame) == size


def test_protocols_are_the_published_ones_number_by_number():
    assert (DINO.context, DINO.radius, DINO.top_k, DINO.temperature, DINO.normalise) == (7, 12, 5, 0.1, True)
    assert (CROPMAE.context, CROPMAE.radius, CROPMAE.top_k, CROPMAE.temperature) == (20, 20, 7, 0.7)
    assert find_protocol("cropmae", dataset="vip").top_k == 10
    assert find_protocol("cropmae", dataset="davis") is CROPMAE
    assert find_protocol("dino", dataset="vip") is DINO
    assert find_protocol("dino_as_released").image_std[0] == 0.228


def test_a_changed_protocol_says_so_in_its_name():
    changed = adjusted(DINO, {"top_k": 10, "radius": 3, "size": "short:240"})
    assert changed.name == "dino, top_k=10, radius=3, size=short:240"
    assert (changed.top_k, changed.size) == (10, FrameSize("short", 240))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"top": 3}, "no 'top'; it has size, context"),
        ({"top_k": "many"}, "top_k of dino is 5; it cannot be 'many'"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"radius": -1}, "radius must be at least 0"),
        ({"neighbourhood": "hexagon"}, "square, disc, got 'hexagon'"),
        ({"size": "480"}, "short:480, long:880 or 480x880"),
        ({"name": "mine"}, "no 'name'"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(changes, wanted):
    with pytest.raises(ValueError, match=wanted):
        adjusted(DINO, changes)


def test_an_unknown_protocol_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match="no propagation protocol 'crw'; there are dino, dino_as_released, cropmae"):
        find_protocol("crw")


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (np.zeros((64, 96), np.float32), "whole numbers of shape"),
        (np.zeros((64, 96, 3), np.uint8), r"got uint8 \(64, 96, 3\)"),
        (np.full((64, 96), 300), "from 0 to 254, or 255"),
        (np.full((64, 96), -1), "from 0 to 254"),
        (np.full((64, 96), 255), "are all 255"),
        (np.zeros((64, 95), np.uint8), "frame 0 has 64×96 pixels .* wanted 64×95"),
    ],
)
def test_labels_that_are_none_are_refused(labels, wanted):
    with pytest.raises(ValueError, match=wanted):
        next(propagate_labels(by_place, [np.zeros((64, 96, 3), np.uint8)], labels, SMALL))


def test_a_frame_of_another_size_is_named():
    frames = [np.zeros((64, 96, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    with pytest.raises(ValueError, match="frame 1 has 64×80 pixels"):
        list(propagate_labels(by_place, frames, half_and_half(), SMALL))


@pytest.mark.parametrize(
    ("encode", "wanted"),
    [
        (lambda frames: torch.zeros(1, 8), r"into features \(1, D, h, w\), got \(1, 8\)"),
        (lambda frames: by_place(frames) * torch.nan, "NaN or infinite"),
    ],
)
def test_features_that_are_unfit_are_refused(encode, wanted):
    with pytest.raises(ValueError, match=wanted):
        list(propagate_labels(encode, [np.zeros((64, 96, 3), np.uint8)] * 2, half_and_half(), SMALL))


# -- pictures and the command ------------------------------------------------------------------------------------------


def test_colours_of_objects_differ():
    palette = np.array(object_palette())
    assert len(np.unique(palette, axis=0)) == 255
    apart = np.linalg.norm(palette[1:9, None].astype(float) - palette[None, 1:9], axis=-1)
    assert apart[~np.eye(8, dtype=bool)].min() > 60


def test_background_and_unknown_pixels_show_the_frame():
    frame = np.full((1, 3, 3), 100, np.uint8)
    drawn = np.asarray(overlay_objects(frame, np.array([[0, 255, 1]], np.uint8), opacity=1.0))
    np.testing.assert_array_equal(drawn[0, :2], frame[0, :2])
    np.testing.assert_array_equal(drawn[0, 2], object_palette()[1])


def test_keypoints_are_dots_and_lost_ones_are_not_drawn():
    drawn = np.asarray(draw_keypoints(np.zeros((40, 60, 3), np.uint8), np.array([[10.0, 20.0], [np.nan, np.nan]])))
    np.testing.assert_array_equal(drawn[20, 10], object_palette()[1])
    assert not drawn[:, 30:].any()


@pytest.fixture
def model(net, monkeypatch):
    monkeypatch.setattr("midway_hub.cli_propagate.load_network", lambda name, **options: net)


@pytest.fixture
def first(tmp_path):
    labels = half_and_half(96, 128)
    labels[:20, :20] = 4
    Image.fromarray(labels).save(tmp_path / "first.png")
    return tmp_path / "first.png"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=7, rate=12)


def run(*arguments):
    return CliRunner().invoke(app, ["propagate", *map(str, arguments), "--device", "cpu"])


def test_the_command_writes_an_overlay_and_a_label_map_per_frame(model, first, clip, tmp_path):
    out = tmp_path / "out"
    ran = run(clip, "--labels", first, "-o", out, "--size", 64, "--every", 2, "--json")
    assert ran.exit_code == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert (facts["frames"], facts["fps"], facts["protocol"]) == (4, 6.0, "dino, size=short:64")
    assert set(facts["share_of_last_frame"]) == {"object 1", "object 4"}
    assert sorted(path.name for path in (out / "labels").iterdir()) == [f"{n:05d}.png" for n in (0, 2, 4, 6)]
    with Image.open(out / "labels" / "00000.png") as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.array(written), np.array(Image.open(first)))
    with open_video(out / "overlay.mp4") as video:
        assert (len(video), video.height, video.width) == (4, 96, 128)


def test_the_command_reads_a_folder_of_frames_from_the_frame_that_is_labelled(model, first, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (8, 9, 10, 11):
        Image.fromarray(np.full((96, 128, 3), number, np.uint8)).save(folder / f"{number}.png")
    ran = run(folder, "--labels", first, "-o", tmp_path / "out", "--size", 64, "--start", 1, "--protocol", "cropmae")
    assert ran.exit_code == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["10.png", "11.png", "9.png"]


@pytest.mark.parametrize("form", ["frame_{}.png", "frame ({}).png", "{}_left.png", "v1.{}.png", "{}.0s.png", "{}.png"])
def test_frames_in_a_folder_are_in_the_order_of_their_numbers(tmp_path, form):
    for number in range(12):
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / form.format(number))
    with open_frames(tmp_path, start=0, every=1, reader="auto") as found:
        assert [int(frame[0, 0, 0]) for frame in found.frames] == list(range(12))
        assert list(found.names) == [Path(form.format(number)).stem for number in range(12)]


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        (
            ["{}_left.png", "{}_right.png"],
            r"frames of 2 videos: \*_left.png \(4\), \*_right.png \(4\); give each a folder",
        ),
        (["cam0_{}.png", "cam1_{}.png"], "frames of 2 videos"),
        (["{}.png", "{}.jpg"], "frames are doubled: 0.jpg and 0.png"),
        (["{}.png", "mask.png"], r"1 of 5 are named unlike the others \(mask.png\); move them"),
    ],
)
def test_a_folder_of_other_than_the_frames_of_one_video_is_refused(tmp_path, forms, message):
    for form in forms:
        for number in range(4):
            Image.new("RGB", (6, 4)).save(tmp_path / form.format(number))
    with (
        pytest.raises(ValueError, match=f"are not the frames of one video: .*{message}"),
        open_frames(tmp_path, start=0, every=1, reader="auto"),
    ):
        pass


def test_the_overlay_alone_is_an_mp4(model, first, clip, tmp_path):
    ran = run(clip, "--labels", first, "-o", tmp_path / "seen.mp4", "--size", 64, "--features", "backward", "--fps", 5)
    assert ran.exit_code == 0, ran.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"first.png", "seen.mp4"}
    assert "object 4" in ran.stdout


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (["--start", "7"], "7 frames that can be read, from 0; there is no frame 7"),
        (["--protocol", "crw"], "no propagation protocol 'crw'"),
        (["--features", "deep"], "teacher, student, backward"),
        (["-o", "here.avi"], "-o must be an .mp4, or a folder"),
    ],
)
def test_the_command_says_what_is_wrong_on_one_line(model, first, clip, tmp_path, changed, wanted):
    ran = run(clip, "--labels", first, "-o", tmp_path / "out", "--size", 64, *changed)
    assert ran.exit_code == 1
    assert wanted in " ".join(ran.stderr.split())


def test_a_mask_of_black_and_white_is_refused_with_what_to_do(model, clip, tmp_path):
    Image.fromarray(half_and_half(96, 128) * 255).save(tmp_path / "mask.png")
    ran = run(clip, "--labels", tmp_path / "mask.png", "-o", tmp_path / "out")
    assert ran.exit_code == 1
    assert "holds no objects, only 0, 255" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("depth", [2, 4])
def test_propagate_follows_the_objects_that_the_file_holds(model, clip, tmp_path, depth):
    labels = np.zeros((96, 128), int)
    labels[10:40, 10:40], labels[50:90, 10:60], labels[10:60, 70:120] = 1, 2, 3
    first = write_png(tmp_path / "first.png", labels, depth)
    ran = run(clip, "--labels", first, "-o", tmp_path / "out", "--size", 64, "--every", 3, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert sorted(json.loads(ran.stdout)["share_of_last_frame"]) == ["object 1", "object 2", "object 3"]


def test_propagate_takes_black_and_white_masks_where_it_is_told_and_refuses_soft_ones_else(
    model,
    clip,
    tmp_path,
):
    away = np.hypot(*(np.mgrid[:96, :128] - np.array([40, 50])[:, None, None])) - 20
    light = (np.clip(0.5 - away / 5, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(light).save(tmp_path / "m.png")
    options = (clip, "--labels", tmp_path / "m.png", "-o", tmp_path / "out", "--size", 64, "--every", 3)
    refused = run(*options)
    assert refused.exit_code == 1
    assert "looks like a mask with soft edges" in " ".join(refused.stderr.split())
    assert not (tmp_path / "out").exists()
    ran = run(*options, "--binary-masks", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert list(json.loads(ran.stdout)["share_of_last_frame"]) == ["object 1"]


@pytest.mark.parametrize("own", ["00001.png", "extra.PNG"])
def test_a_folder_with_maps_of_another_run_is_refused_and_keeps_them(model, first, clip, tmp_path, own):
    out = tmp_path / "out"
    options = (clip, "--labels", first, "-o", out, "--size", 64, "--every", 2)
    assert run(*options).exit_code == 0
    assert run(*options).exit_code == 0  # what is written over is not in the way
    (out / "labels" / own).write_bytes(b"mine")
    (out / "labels" / "notes.txt").write_text("mine")
    ran = run(*options)
    assert ran.exit_code == 1
    assert f"holds 1 files that this run would not write over ({own})" in " ".join(ran.stderr.split())
    assert (out / "labels" / own).read_bytes() == b"mine"


def test_a_shorter_run_into_the_folder_of_a_longer_one_is_refused(model, first, clip, tmp_path):
    options = (clip, "--labels", first, "-o", tmp_path / "out", "--size", 64, "--every")
    assert run(*options, 2).exit_code == 0
    ran = run(*options, 4)
    assert ran.exit_code == 1
    assert "(00002.png, 00006.png)" in " ".join(ran.stderr.split())


def test_real_frames_with_a_real_mask_keep_the_object_in_place(shared):
    """From one frame of DAVIS to the next the wrestler hardly moves, so that the patches' pixels already follow him."""
    folder = shared / "data/davis"
    labels = read_label_map(folder / "Annotations/480p/judo/00000.png")
    frames = sorted((folder / "JPEGImages/480p/judo").iterdir())[:3]
    overlap = []
    for encode in (by_pixels, lambda frames: torch.ones_like(by_pixels(frames))):
        *_, found = propagate_labels(encode, frames, labels, DINO)
        overlap.append(((found > 0) & (labels > 0)).sum() / ((found > 0) | (labels > 0)).sum())
    assert overlap[0] > 0.6 > overlap[1]
