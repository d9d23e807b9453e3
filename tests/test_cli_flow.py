import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import HEIGHT, WIDTH, numbered_frame, write_clip

from midway_hub import MidwayConfig
from midway_hub.class_notes import WORLD_CLASSES, classes_note
from midway_hub.cli import app
from midway_hub.dense import flow_between, labels_of
from midway_hub.flow_io import flow_picture, read_flow
from midway_hub.label_pictures import class_legend
from midway_hub.processing import MidwayImageProcessor, load_frame
from midway_hub.video import open_video

CLASSES = ("road", "sidewalk", "building", "sky")
PALETTE = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (70, 130, 180))


@pytest.fixture(scope="module")
def net():
    """A random network with both heads, whose flow is some pixels long."""
    network = make_tiny_net(
        target_network="shared",
        flow_head={"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4, "tile": [64, 96]},
        segmentation_head={"classes": CLASSES, "palette": PALETTE},
    )
    with torch.no_grad():
        for parameter in network.flow_head.parameters():
            parameter.mul_(2)
    return network


@pytest.fixture
def model(net, monkeypatch):
    """The network's name, without the seconds that loading takes."""
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda name, **options: net)
    return "in memory"


@pytest.fixture(scope="module")
def saved_model(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two frames of a size that is no multiple of anything."""
    folder = tmp_path_factory.mktemp("frames")
    for number in (0, 4):
        Image.fromarray(numbered_frame(number)[:67, :101]).save(folder / f"{number}.png")
    return folder / "0.png", folder / "4.png"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=9, rate=12)


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def facts_of(*arguments):
    ran = run(*arguments, "--json")
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


def network_flow(net, frames, **options):
    """What the network itself says of two files, (H, W, 2)."""
    source, target = MidwayImageProcessor(multiple=1)([load_frame(path) for path in frames])["pixel_values"].split(1)
    with torch.no_grad():
        return net.flow(source, target, **options).flow[0].movedim(0, -1).numpy()


# -- flow of a pair ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".flo", ".pfm", ".npy", ".npz"])
def test_flow_of_two_images_is_the_networks_at_their_own_size(tmp_path, net, model, frames, suffix):
    facts = facts_of("flow", *frames, "-o", tmp_path / f"out{suffix}", "-m", model)
    field = read_flow(tmp_path / f"out{suffix}")
    expected = network_flow(net, frames)
    assert field.valid.all()
    assert field.flow.shape == (67, 101, 2)
    np.testing.assert_allclose(field.flow, expected, atol=1e-5)
    assert (facts["height"], facts["width"]) == (67, 101)
    assert facts["longest_flow"] == pytest.approx(np.linalg.norm(expected, axis=2).max(), abs=1e-3)
    assert facts["longest_flow"] > 0.5


def test_a_saved_network_is_loaded_with_its_heads(tmp_path, net, saved_model, frames):
    facts_of("flow", *frames, "-o", tmp_path / "out.flo", "-m", saved_model)
    np.testing.assert_allclose(read_flow(tmp_path / "out.flo").flow, network_flow(net, frames), atol=1e-5)


def test_a_png_is_a_colour_picture_and_with_kitti_numbers(tmp_path, net, model, frames):
    facts = facts_of("flow", *frames, "-o", tmp_path / "colours.png", "-m", model)
    assert facts["holds"].startswith("colours, full at")
    assert Image.open(tmp_path / "colours.png").size == (101, 67)
    facts = facts_of("flow", *frames, "-o", tmp_path / "numbers.png", "--kitti", "-m", model)
    assert facts["holds"] == "flow in pixels"
    np.testing.assert_allclose(read_flow(tmp_path / "numbers.png").flow, network_flow(net, frames), atol=1 / 100)


def test_numbers_and_picture_can_be_had_at_once(tmp_path, model, frames):
    options = ("--picture", tmp_path / "out.jpg", "--arrows", "--scale", 2, "-m", model)
    facts = facts_of("flow", *frames, "-o", tmp_path / "out.flo", *options)
    assert facts["pictures"] == [str(tmp_path / "out.jpg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.flo", "out.jpg"]


def test_tiles_and_sizes_reach_the_network(tmp_path, net, model, frames):
    facts_of(
        "flow", *frames, "-o", tmp_path / "a.npy", "--tile", "32,48", "--overlap", 0.25, "--size", "own", "-m", model
    )
    expected = network_flow(net, frames, tile=(32, 48), overlap=0.25)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)
    facts_of("flow", *frames, "-o", tmp_path / "b.npy", "--tile", "training", "-m", model)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), network_flow(net, frames, tile="training"), atol=1e-5)
    facts_of("flow", *frames, "-o", tmp_path / "c.npy", "--size", 48, "-m", model)
    resized = np.load(tmp_path / "c.npy")
    assert resized.shape == (67, 101, 2)
    assert np.abs(resized - network_flow(net, frames)).max() > 0.01


def test_flow_at_another_size_is_in_pixels_of_the_frames(net, frames):
    pair = [np.asarray(Image.open(path).resize((96, 64))) for path in frames]
    double = [np.asarray(Image.fromarray(frame).resize((192, 128), Image.Resampling.NEAREST)) for frame in pair]
    processor = MidwayImageProcessor(fit="shortest", size=64, multiple=1)
    source, target = processor(double)["pixel_values"].split(1)
    with torch.no_grad():
        small = net.flow(source, target).flow.mean(dim=(0, 2, 3)).numpy()
    assert flow_between(net, double, size=64).mean(axis=(0, 1)) == pytest.approx(2 * small, rel=1e-3)


# -- flow of a video -----------------------------------------------------------------------------------------------


def test_flow_of_a_video_is_a_video_of_colours_at_its_own_size(tmp_path, model, clip):
    facts = facts_of("flow", clip, "-o", tmp_path / "out.mp4", "-m", model)
    with open_video(tmp_path / "out.mp4") as video:
        assert (len(video), video.height, video.width) == (8, HEIGHT, WIDTH)
        assert video.fps == pytest.approx(12)
    assert facts["pairs"] == 8
    assert facts["colours_full_at"] >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_every_other_frame_makes_half_the_pairs_at_half_the_rate(tmp_path, model, clip):
    facts = facts_of("flow", clip, "-o", tmp_path / "out.mp4", "--every", 2, "--arrows", "--scale", 3, "-m", model)
    assert (facts["pairs"], facts["fps"], facts["colours_full_at"]) == (4, 6.0, 3.0)


def test_every_picture_of_the_video_is_that_of_its_own_pair(tmp_path, net, model, clip):
    facts_of("flow", clip, "-o", tmp_path / "out.mp4", "--scale", 30, "--no-legend", "-m", model)
    with open_video(clip) as video:
        frames = video.get_frames(range(9))
    with open_video(tmp_path / "out.mp4") as video:
        seen = video.get_frames(range(8)).astype(int)
    pairs = [flow_picture(flow_between(net, frames[first : first + 2]), largest=30) for first in range(8)]
    difference = np.array([[np.abs(picture - np.asarray(pair)).mean() for pair in pairs] for picture in seen])
    assert difference.argmin(axis=1).tolist() == list(range(8))
    assert difference.diagonal().max() < 8


def test_flow_of_a_video_that_was_cut_off_says_so(tmp_path, model, sample_videos):
    clip = sample_videos / "derived_truncated_faststart_udacity.mp4"
    facts = facts_of("flow", clip, "-o", tmp_path / "out.mp4", "--every", 6, "--size", 64, "-m", model)
    assert facts["pairs"] == 2
    assert facts["note"].startswith("only the first 13 frames can be read")


# -- segmentation --------------------------------------------------------------------------------------------------


def test_segmentation_of_an_image_is_an_overlay_and_a_label_map(tmp_path, net, model, frames):
    options = ("--labels", tmp_path / "labels.png", "-m", model)
    facts = facts_of("segment", frames[0], "-o", tmp_path / "out.png", *options)
    with torch.no_grad():
        expected = net.segment(MidwayImageProcessor(multiple=1)(frames[0])["pixel_values"]).labels[0].numpy()
    labels = Image.open(tmp_path / "labels.png")
    assert labels.mode == "P"
    assert (np.asarray(labels) == expected).mean() > 0.999
    assert np.asarray(labels.convert("RGB"))[0, 0].tolist() == list(PALETTE[expected[0, 0]])
    assert Image.open(tmp_path / "out.png").size == (101, 67)
    assert sum(facts["classes"].values()) == pytest.approx(1, abs=1e-3)
    assert set(facts["classes"]) <= set(CLASSES)


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_classes_of_synthetic_worlds_are_called_so_with_what_is_written(tmp_path, frames, clip, suffix):
    source = frames[0] if suffix == ".png" else clip
    facts = facts_of("segment", source, "-o", tmp_path / f"out{suffix}", "--size", 64, "-m", "midway_pico")
    assert "The model was taught no class of real scenes" in facts["meaning"]


def test_classes_of_ones_own_are_written_without_a_word(tmp_path, model, frames):
    assert "meaning" not in facts_of("segment", frames[0], "-o", tmp_path / "out.png", "-m", model)


def test_the_legend_of_synthetic_worlds_has_a_heading():
    colours = [(0, 0, 0)] * len(WORLD_CLASSES)
    plain = class_legend(("road", "sky"), colours[:2], [0, 1])
    headed = class_legend(WORLD_CLASSES, colours, [0, 1])
    assert (plain.height, headed.height) == (2 * plain.height // 2, 3 * plain.height // 2)
    assert headed.width > plain.width


def test_the_classes_that_are_noted_are_those_of_the_worlds():
    from midway_hub.training.data.synthetic import CLASSES as OF_WORLDS

    bundled = MidwayConfig.from_pretrained("midway_pico").segmentation_head["classes"]
    assert tuple(OF_WORLDS) == tuple(bundled) == WORLD_CLASSES
    assert classes_note(bundled)
    assert classes_note(("background", "ground", "wall")) is None


def test_the_overlay_lets_the_frame_through(tmp_path, model, frames):
    facts_of("segment", frames[0], "-o", tmp_path / "out.png", "--opacity", 0, "--no-legend", "-m", model)
    assert (np.asarray(Image.open(tmp_path / "out.png")) == np.asarray(Image.open(frames[0]))).all()


def test_segmentation_of_a_video_is_a_video_and_a_folder_of_label_maps(tmp_path, model, clip):
    options = ("--every", 3, "--labels", tmp_path / "maps", "--slide", "64,48", "-m", model)
    facts = facts_of("segment", clip, "-o", tmp_path / "out.mp4", *options)
    assert facts["frames"] == 3
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["000000.png", "000003.png", "000006.png"]
    with open_video(tmp_path / "out.mp4") as video:
        assert (len(video), video.height, video.width) == (3, HEIGHT, WIDTH)


def test_label_maps_of_another_run_are_neither_mixed_with_nor_deleted(tmp_path, model, clip):
    options = ("segment", clip, "-o", tmp_path / "out.mp4", "--labels", tmp_path / "maps", "-m", model)
    facts_of(*options, "--every", 3)
    facts_of(*options, "--every", 3)
    kept = (tmp_path / "maps/000003.png").read_bytes()
    ran = run(*options, "--every", 4)
    assert ran.exit_code == 1
    assert "holds 2 files that this run would not write over (000003.png, 000006.png)" in ran.stderr
    assert (tmp_path / "maps/000003.png").read_bytes() == kept


def test_labels_at_another_size_come_back_at_the_frames_own(net, frames):
    labels = labels_of(net, frames[0], size=32)
    assert (labels.shape, labels.dtype) == ((67, 101), np.uint8)
    assert labels.max() < len(CLASSES)


# -- what is wrong is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["flow", "segment"])
def test_a_checkpoint_without_the_head_is_one_line_that_says_so(tmp_path, command):
    clip = files("midway_hub.samples") / "highway.mp4"
    ran = run(command, clip, "-o", tmp_path / "out.mp4", "--size", 32, "-m", "midway_pico_untrained")
    assert ran.exit_code == 1
    assert f"this checkpoint has no {'flow' if command == 'flow' else 'segmentation'} head" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A", "B", "-o", "out.exr"), "flow between images is written as .flo .pfm"),
        (("A", "B", "-o", "out.flo", "--kitti"), "KITTI's 16-bit flow is a .png"),
        (("A", "B", "-o", "out.flo", "--picture", "out.txt"), "pictures are written as .png"),
        (("A", "B", "-o", "out.flo", "--tile", "32"), "--tile must be HEIGHTxWIDTH"),
        (("A", "B", "-o", "out.flo", "--overlap", "0.5"), "name a tile too"),
        (("A", "B", "-o", "out.png", "--scale", "0"), "must be a positive number of pixels"),
        (("A", "-o", "out.flo"), "exactly two images"),
        (("A", "wide.png", "-o", "out.flo"), "must be of one size"),
        (("A", "nothing.png", "-o", "out.flo"), "nothing.png"),
        (("wide.png", "A", "-o", "wide.png"), "wide.png cannot be written: it is what is read"),
        (("A", "B", "-o", "out.png", "--picture", "out.png"), "another result is written there"),
        (("A", "B", "-o", "nowhere/out.flo"), "there is no folder nowhere"),
        (("CLIP", "-o", "CLIP"), "it is what is read"),
        (("CLIP", "-o", "out.flo"), "videos are written as .mp4"),
        (("CLIP", "-o", "out.mp4", "--every", "9"), "flow needs two"),
        (("CLIP", "-o", "out.mp4", "--kitti"), "--kitti and --picture are for the flow between two images"),
    ],
)
def test_what_flow_cannot_do_is_said_and_nothing_is_written(
    tmp_path, monkeypatch, model, frames, clip, arguments, message
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (102, 67)).save("wide.png")
    known = {"A": frames[0], "B": frames[1], "CLIP": clip}
    ran = run("flow", *(known.get(argument, argument) for argument in arguments), "-m", model)
    assert ran.exit_code == 1
    assert message in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["wide.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A", "-o", "out.mp4"), "pictures are written as .png"),
        (("A", "-o", "out.png", "--labels", "map.jpg"), "label maps are written as .png"),
        (("A", "-o", "out.png", "--slide", "big"), "--slide must be SIDExSTEP"),
        (("A", "-o", "out.png", "--opacity", "2"), "opacity must be from 0 to 1"),
        (("A", "-o", "A"), "it is what is read"),
        (("CLIP", "-o", "out.png"), "videos are written as .mp4"),
    ],
)
def test_what_segment_cannot_do_is_said_and_nothing_is_written(
    tmp_path, monkeypatch, model, frames, clip, arguments, message
):
    monkeypatch.chdir(tmp_path)
    known = {"A": frames[0], "CLIP": clip}
    ran = run("segment", *(known.get(argument, argument) for argument in arguments), "-m", model)
    assert ran.exit_code == 1
    assert message in ran.stderr
    assert list(tmp_path.iterdir()) == []


# -- the demo ------------------------------------------------------------------------------------------------------


def test_the_demo_shows_flow_and_classes_of_a_network_that_has_the_heads(tmp_path, saved_model, clip):
    from midway_hub.app.demo import run_demo

    seen = []
    told = {"frames": 2, "draws": 1, "progress": lambda *step: seen.append(step)}
    page = run_demo(clip, out=tmp_path, model=str(saved_model), **told)
    html = page.read_text()
    for title, picture in (("How it moves", "flow.png"), ("What it is", "classes_1.png")):
        assert title in html
        assert picture in html
        assert np.asarray(Image.open(tmp_path / picture)).std() > 10
    assert "wheel of the flow" in html
    assert "classes and their colours: " in html
    assert ("flow", 1, 1) in seen
    assert ("classes", 2, 2) in seen
