"""The motion latents that `extract_motion` stores."""

import json

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from safetensors.numpy import load_file
from test_extraction_features import assert_same, decode, make_video

from midway_hub import MidwayImageProcessor
from midway_hub.extraction import extract_motion, read_metadata


def pairwise(net, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Infer the motion of neighbouring frames, one pair at a time."""
    pixels = MidwayImageProcessor()(frames)["pixel_values"]
    with torch.inference_mode():
        found = [net.infer_motion(pixels[i : i + 1], pixels[i + 1 : i + 2]) for i in range(len(pixels) - 1)]
    return {
        f"latents_level_{level}": np.concatenate([motion.latents[i].numpy() for motion in found])
        for i, level in enumerate(found[0].levels)
    }


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", frames=8)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("target_network", ["ema", "shared"])
def test_motion_of_a_video_is_that_of_its_pairs_one_by_one(clip, tmp_path, batch, target_network):
    net = make_tiny_net(target_network=target_network)
    (written,) = extract_motion(net, clip, tmp_path / "out", every=2, batch=batch).done
    wanted = {
        **pairwise(net, decode(clip)[::2]),
        "pairs": np.array([[0, 2], [2, 4], [4, 6]]),
        "timestamps": np.array([[0, 0.2], [0.2, 0.4], [0.4, 0.6]]),
    }
    assert written.count == 3
    assert wanted["latents_level_8"].shape == (3, 10, 24)
    assert_same(load_file(written.output), wanted)


def test_the_student_encodes_every_source_frame_once(tiny_net, clip, tmp_path):
    seen = []
    tiny_net.student.patch_embed.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    extract_motion(tiny_net, clip, tmp_path / "out", batch=3)
    assert sum(seen) == 7


def test_two_images_are_a_pair_from_the_first_to_the_second(tiny_net, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    for name, pixels in zip(("a.png", "b.png"), frames, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    (written,) = extract_motion(tiny_net, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out").done
    assert written.output.name == "a.png--b.png.safetensors"
    wanted = {**pairwise(tiny_net, frames), "pairs": np.array([[0, 1]]), "timestamps": np.zeros((1, 2))}
    assert_same(load_file(written.output), wanted)
    held = read_metadata(written.output)
    assert json.loads(held["source_name"]) == ["a.png", "b.png"]
    assert json.loads(held["frame_size"]) == [50, 70]
    assert json.loads(held["input_size"]) == [64, 80]


def test_images_of_unequal_size_fail_with_both_sizes(tiny_net, tmp_path):
    Image.new("RGB", (70, 50)).save(tmp_path / "a.png")
    Image.new("RGB", (71, 50)).save(tmp_path / "b.png")
    (failure,) = extract_motion(tiny_net, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out").failed
    assert "must be of one size" in failure.reason
    assert "a.png 50×70" in failure.reason
    assert "b.png 50×71" in failure.reason
    assert not (tmp_path / "out").exists()


def test_a_video_of_which_one_frame_is_kept_has_no_motion(tiny_net, clip, tmp_path):
    (failure,) = extract_motion(tiny_net, clip, tmp_path / "out", every=8).failed
    assert failure.reason == "motion needs at least two frames, got 1 (every=8)"


def test_an_encoder_alone_has_no_motion(clip, tmp_path):
    with pytest.raises(ValueError, match="holds an encoder alone, no dynamics"):
        extract_motion(make_tiny_net(dynamics=False), clip, tmp_path / "out")


def test_motion_of_real_clips_is_the_same_whatever_the_reader_and_batch(tiny_net, sample_videos, tmp_path):
    pytest.importorskip("decord")
    options = {"every": 12, "processor": MidwayImageProcessor(fit="resize", size=(64, 96))}
    clip = sample_videos / "udacity_highway_720p.mp4"
    one = extract_motion(tiny_net, clip, tmp_path / "pyav", reader="pyav", batch=1, **options).done[0]
    other = extract_motion(tiny_net, clip, tmp_path / "decord", reader="decord", batch=3, **options).done[0]
    assert_same(load_file(other.output), load_file(one.output))
