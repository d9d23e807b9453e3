"""`midway-hub perturb`, `pca` and `trajectories`: what is written, and what is said about it."""

import json
import math
import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import HEIGHT, WIDTH, numbered_frame, write_clip

from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.analysis.trajectories import motion_path
from midway_hub.analysis_pictures import read_pair, touch_points
from midway_hub.analysis_pictures.axes import Axes, padded, ticks
from midway_hub.analysis_pictures.feature_look import FeatureLook
from midway_hub.analysis_pictures.perturb_files import perturbation_picture
from midway_hub.analysis_pictures.sheets import captioned_sheet
from midway_hub.cli import app
from midway_hub.models.dynamics import DynamicsLevel
from midway_hub.processing import MidwayImageProcessor
from midway_hub.video import open_video

NARROW = {"embed_dim": 16, "num_heads": 2, "backward_heads": 2, "predictor_heads": 2}
GRID = (3, 4)


class Permuting(DynamicsLevel):
    """A level that moves every patch two columns on, around the edge: the same both ways on a grid of four columns."""

    def predict(self, motion, source):
        patches = source[:, 1:].unflatten(1, GRID).roll(2, 2).flatten(1, 2)
        return torch.cat([source[:, :1], patches], dim=1)


class Shifting(DynamicsLevel):
    """A level that moves every patch one column on, around the edge, whichever frame comes first."""

    def predict(self, motion, source):
        patches = source[:, 1:].unflatten(1, GRID).roll(1, 2).flatten(1, 2)
        return torch.cat([source[:, :1], patches], dim=1)


def net_of(kind):
    net = make_tiny_net(**NARROW)
    for level in net.dynamics.levels.values():
        level.__class__ = kind
    return net


@pytest.fixture
def model(monkeypatch):
    """Puts a network in the place of the one that would be loaded."""

    def put(net):
        monkeypatch.setattr("midway_hub.cli_analysis.load_network", lambda name, **options: net)
        return net

    return put


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two frames of 61×45 pixels, which are padded to 4×3 patches."""
    folder = tmp_path_factory.mktemp("frames")
    for number in (0, 4):
        Image.fromarray(numbered_frame(number)[:45, :61]).save(folder / f"{number}.png")
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


def error_of(*arguments):
    ran = run(*arguments)
    assert ran.exit_code == 1
    return " ".join(ran.stderr.split())


# -- perturb -----------------------------------------------------------------------------------------------------------


def test_the_peak_of_a_known_permutation_is_told_in_pixels_at_every_level(tmp_path, model, images):
    model(net_of(Permuting))
    facts = facts_of(
        "perturb", *images, "--size", 0, "--at", "3,20", "--at", "50,44", "--draws", 2, "-o", tmp_path / "out.png"
    )
    assert (facts["width"], facts["height"], facts["measured_by"]) == (61, 45, "2 random directions")
    first, second = facts["points"]
    assert (first["at"], second["at"]) == ([3, 20], [50, 44])
    assert [found["level"] for found in first["levels"]] == [8, 5, 2]
    for found in first["levels"]:
        assert found["peak"] == [39.5, 23.5]
        assert found["displacement"] == [32, 0]
        assert found["score"] == pytest.approx(1, abs=1e-5)
        assert found["confidence"] == 1
    assert second["levels"][0]["peak"] == [23.5, 39.5]


def test_a_peak_that_does_not_lead_back_is_less_sure():
    frames = [Image.new("RGB", (64, 48))] * 2
    (touch,) = touch_points(net_of(Shifting), frames, [(2, 2)], draws=1)
    for answer in touch.answers:  # forth and back again end two columns from the start
        assert answer.displacement == (16, 0)
        assert answer.confidence == pytest.approx(math.exp(-2))


def test_on_resized_frames_places_stay_those_of_the_frames():
    frames = [Image.new("RGB", (128, 96))] * 2
    (touch,) = touch_points(net_of(Permuting), frames, [(10, 70)], size=48, draws=1)
    answer = touch.answers[0]
    assert answer.peak == (79.5, 79.5)
    assert answer.displacement == (64, 0)
    assert answer.heatmap.shape == (96, 128)
    assert touch.box == pytest.approx((0, 63.5, 31.5, 95), abs=0.5)


def test_heatmaps_are_those_of_the_analysis(images):
    net = make_tiny_net(**NARROW)
    (touch,) = touch_points(net, read_pair(images), [(20, 40)], level=5, draws=3)
    source, target = MidwayImageProcessor()([Image.open(path) for path in images])["pixel_values"].split(1)
    expected = perturbation_heatmaps(net, net.infer_motion(source, target), [9], level=5, draws=3)[0]
    (answer,) = touch.answers
    assert answer.score == pytest.approx(expected.max().item(), rel=1e-4)
    row, column = divmod(expected.argmax().item(), 4)
    assert answer.peak == (min(16 * column + 7.5, 60), min(16 * row + 7.5, 44))
    assert answer.heatmap.shape == (45, 61)


def test_the_exact_way_needs_no_draws(tmp_path, model, images):
    model(net_of(Permuting))
    facts = facts_of(
        "perturb", *images, "--size", 0, "--at", "3,20", "--exact", "--level", 2, "-o", tmp_path / "out.png"
    )
    assert facts["measured_by"] == "whole Jacobian"
    (found,) = facts["points"][0]["levels"]
    assert (found["level"], found["peak"]) == (2, [39.5, 23.5])


@pytest.mark.parametrize(
    ("options", "total"), [(["--draws", "5"], 30), (["--draws", "5", "--level", "2"], 10), (["--exact"], 96)]
)
def test_progress_goes_through_the_directions_of_every_level_there_and_back(
    tmp_path, model, images, monkeypatch, options, total
):
    told = told_of(monkeypatch)
    model(net_of(Permuting))
    facts_of("perturb", *images, "--size", 0, "--at", "5,5", "-o", tmp_path / "felt.png", *options)
    assert told[0] == ("directions", 0, total)
    assert told[-1] == ("directions", total, total)
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert len(set(done)) > total / 20


@pytest.mark.parametrize("options", [["--draws", "40"], ["--exact"], ["--level", "2"]])
def test_an_interruption_within_a_level_ends_the_command_and_leaves_nothing(
    tmp_path, model, images, monkeypatch, options
):
    told = told_of(monkeypatch, interrupt_at=2)
    model(net_of(Permuting))
    result = run("perturb", *images, "--size", 0, "--at", "5,5", "-o", tmp_path / "felt.png", *options)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.output
    assert len(told) == 2
    assert list(tmp_path.iterdir()) == []
    told_of(monkeypatch)
    assert run("perturb", *images, "--size", 0, "--at", "5,5", "-o", tmp_path / "felt.png", *options).exit_code == 0


def told_of(monkeypatch, interrupt_at=0):
    """Record what progress is told, and at one of its calls press Ctrl+C."""
    told = []

    def update(*step):
        told.append(step)
        if len(told) == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    @contextmanager
    def bars(**_):
        yield update

    monkeypatch.setattr("midway_hub.cli_analysis.console.step_bars", bars)
    return told


def test_the_picture_has_a_row_per_point_and_a_panel_per_level(tmp_path, model, images):
    model(net_of(Permuting))
    facts_of("perturb", *images, "--size", 0, "--at", "3,20", "--at", "50,44", "-o", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width == 4 * 360 + 3 * 8 + 2 * 8
        assert picture.height > 2 * (26 + 360 * 45 // 61)


def test_the_marks_and_the_heat_are_where_the_touch_and_the_peak_are():
    frames = [Image.new("RGB", (64, 48), (90, 90, 90))] * 2
    touches = touch_points(net_of(Permuting), frames, [(8, 8)], level=2, draws=1)
    drawn = np.asarray(perturbation_picture(frames, touches, names=("a", "b"), how="1")).astype(int)
    scale = 360 / 64
    source, felt = drawn[34 : 34 + 270, 8:368], drawn[34 : 34 + 270, 376:736]
    cyan = (np.abs(source - (0, 229, 255)).sum(axis=2) < 60).nonzero()
    assert cyan[1].max() < 20 * scale > cyan[0].max()
    assert felt[round(8 * scale), round(40 * scale)].sum() > 500  # the brightest of the scale
    assert np.ptp(felt[round(40 * scale), round(8 * scale)]) < 12  # grey where nothing is felt


def test_frames_of_a_video_are_picked_by_number(tmp_path, model, clip):
    net = model(make_tiny_net(**NARROW))
    arguments = ("--at", "3,20", "--size", 32, "--draws", 1, "--level", 2, "-o", tmp_path / "out.png")
    found = facts_of("perturb", clip, "--pair", "2,7", *arguments)["points"][0]["levels"][0]
    with open_video(clip) as video:
        frames = list(video.get_frames([2, 7]))
    (touch,) = touch_points(net, frames, [(3, 20)], level=2, draws=1, size=32)
    assert found["score"] == pytest.approx(touch.answers[0].score, abs=1e-5)


def test_without_json_a_table_says_where_every_level_felt_it(tmp_path, model, images):
    model(net_of(Permuting))
    ran = run("perturb", *images, "--size", 0, "--at", "3,20", "-o", tmp_path / "out.png")
    assert ran.exit_code == 0, ran.stderr
    assert "+32, +0" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--at", "3"), "--at must be X,Y in pixels, such as 120,80; got '3'"),
        (("--at", "61,3"), "lies outside the frame of 61×45 pixels"),
        (("--at", "3,3", "--level", "7"), "level 7 is not one of the network's levels (8, 5, 2)"),
        (("--at", "3,3", "--level", "fine"), "--level must be an encoder block such as 2, or all; got 'fine'"),
        (("--at", "3,3", "--draws", "0"), "must be at least 1, got 0"),
        (("--at", "3,3", "--pair", "0,1"), "--pair picks two frames of a video"),
    ],
)
def test_perturb_says_what_is_wrong(tmp_path, model, images, arguments, message):
    model(make_tiny_net(**NARROW))
    assert message in error_of("perturb", *images, *arguments, "-o", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_two_images_must_be_of_one_size(tmp_path, model, images):
    model(make_tiny_net(**NARROW))
    Image.new("RGB", (32, 48)).save(tmp_path / "other.png")
    message = error_of("perturb", images[0], tmp_path / "other.png", "--at", "1,1", "-o", tmp_path / "out.png")
    assert "must be of one size (width×height)" in message
    assert "32×48; resize one of them" in message


def test_frames_that_a_video_does_not_have_are_refused(tmp_path, model, clip):
    model(make_tiny_net(**NARROW))
    out = ("--at", "1,1", "-o", tmp_path / "out.png")
    assert "has frames 0 to 8, got the pair (3, 9)" in error_of("perturb", clip, "--pair", "3,9", *out)
    assert "--pair must be two frame numbers, such as 0,5; got '3'" in error_of("perturb", clip, "--pair", "3", *out)


def test_a_picture_is_no_place_for_a_video(tmp_path, model, images):
    model(make_tiny_net(**NARROW))
    assert "pictures are written as .png" in error_of(
        "perturb", *images, "--size", 0, "--at", "1,1", "-o", tmp_path / "out.mp4"
    )


def test_results_do_not_replace_what_is_read(model, images):
    model(make_tiny_net(**NARROW))
    before = images[0].read_bytes()
    assert "it is what is read" in error_of("perturb", *images, "--size", 0, "--at", "1,1", "-o", images[0])
    assert "it is what is read" in error_of("pca", *images, "-o", images[0])
    assert images[0].read_bytes() == before


# -- pca ---------------------------------------------------------------------------------------------------------------


def test_images_share_one_basis(tmp_path, model, images):
    model(make_tiny_net(**NARROW))
    Image.open(images[0]).save(tmp_path / "again.png")
    facts = facts_of("pca", *images, tmp_path / "again.png", "--layer", 3, "-o", tmp_path / "out.png")
    assert (facts["images"], facts["layer"], len(facts["explained"])) == (3, 3, 3)
    with Image.open(tmp_path / "out.png") as picture:
        rows, height = np.asarray(picture), 266
    tops = [8 + 26 + n * (height + 26 + 8) for n in range(3)]
    panels = [rows[top : top + height, 376:736] for top in tops]
    np.testing.assert_array_equal(panels[0], panels[2])
    assert (panels[0] != panels[1]).any()


def test_colours_are_those_of_the_layer_at_the_frames_size(images):
    net = make_tiny_net(**NARROW)
    look = FeatureLook(net, layer=2)
    found = look.read(Image.open(images[0]))
    pixels = MidwayImageProcessor()([Image.open(images[0])])["pixel_values"]
    torch.testing.assert_close(found.grid, net.encode(pixels, layers=[2]).layers[0][0])
    assert found.attention is None


def test_identical_frames_have_identical_colours_throughout_a_clip(model):
    look = FeatureLook(model(make_tiny_net(**NARROW)), attention=True)
    still, other = (Image.fromarray(numbered_frame(number)) for number in (0, 30))
    look.settle([look.read(still), look.read(other)])
    drawn = [np.asarray(look.panels(frame, look.read(frame), "x")) for frame in (still, other, still)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert (drawn[0] != drawn[1]).any()


def test_attention_adds_a_panel_per_head_on_one_scale(tmp_path, model, images):
    model(make_tiny_net(**NARROW))
    facts = facts_of("pca", images[0], "--attention", "-o", tmp_path / "out.png")
    assert 0 < facts["attention_scale"] < 1
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width == 3 * 360 + 2 * 8 + 2 * 8
        assert picture.height > 2 * (266 + 26)  # frame, colours, mean; two heads


def test_a_video_becomes_a_video_of_as_many_frames(tmp_path, model, clip):
    model(make_tiny_net(**NARROW))
    facts = facts_of("pca", clip, "--every", 4, "--size", 32, "-o", tmp_path / "out.mp4")
    assert (facts["frames"], facts["fps"]) == (3, 3)
    with open_video(tmp_path / "out.mp4") as video:
        assert len(video) == 3
        assert video.width == 2 * 360 + 8 + 2 * 8
        assert video.height >= 360 * HEIGHT // WIDTH + 26


def test_pca_says_what_is_wrong(tmp_path, model, images, clip):
    model(make_tiny_net(**NARROW))
    out = tmp_path / "out.png"
    assert "layer 12 does not exist: the encoder has blocks 0 to 11" in error_of(
        "pca", images[0], "--layer", 12, "-o", out
    )
    assert "pca takes images, or one video; got 2 inputs" in error_of("pca", images[0], clip, "-o", out)
    assert "videos are written as .mp4" in error_of("pca", clip, "-o", out)


# -- trajectories ------------------------------------------------------------------------------------------------------


def test_trajectories_are_those_of_the_videos_latents(tmp_path, model, clip):
    net = model(make_tiny_net(**NARROW))
    facts = facts_of("trajectories", clip, "--size", 32, "--every", 2, "-o", tmp_path / "out.png")
    assert [moment["frames"] for moment in facts["moments"]] == [[0, 2], [2, 4], [4, 6], [6, 8]]
    assert facts["moments"][1]["seconds"] == pytest.approx([2 / 12, 4 / 12], abs=1e-3)
    with open_video(clip) as video:
        frames = [video.get_frames([number])[0] for number in range(0, 9, 2)]
    pixels = MidwayImageProcessor(fit="shortest", size=32)(frames)["pixel_values"]
    latents = net.infer_motion(pixels[:-1], pixels[1:]).latents
    assert [level["level"] for level in facts["levels"]] == [8, 5, 2]
    for level, expected in zip(facts["levels"], map(motion_path, latents), strict=True):
        assert level["explained"] == pytest.approx(expected.explained.tolist(), abs=1e-3)
        assert level["to_next"] == pytest.approx(expected.distances.diagonal(1).tolist(), abs=1e-4)
        assert level["nearest"][0]["moment"] in (2, 3)  # 0.25 s are two moments
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.height > 3 * 400


def test_too_short_a_video_has_no_trajectory(tmp_path, model, clip):
    model(make_tiny_net(**NARROW))
    message = error_of("trajectories", clip, "--every", 5, "-o", tmp_path / "out.png")
    assert "gives 2 frames; a trajectory needs at least 3" in message


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0, 10), [0, 2, 4, 6, 8, 10]),
        ((-0.31, 0.29), [-0.3, -0.2, -0.1, 0, 0.1, 0.2]),
        ((1.4, 0), [1.25, 1.0, 0.75, 0.5, 0.25, 0]),
        ((3, 3.001), [3, 3.0002, 3.0004, 3.0006, 3.0008, 3.001]),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(ends, expected):
    assert ticks(ends) == pytest.approx(expected)


def test_points_lie_where_the_axes_say():
    axes = Axes("t", across="a", up="u", x=(0, 10), y=(0, 10), size=(420, 400))
    axes.dots(np.array([[10.0, 10.0], [0.0, 0.0]]), [(255, 0, 0), (0, 0, 255)], radius=5)
    drawn = np.asarray(axes.picture()).astype(int)
    red, blue = ((np.abs(drawn - colour).sum(axis=2) < 80).nonzero() for colour in ((255, 0, 0), (0, 0, 255)))
    assert (red[1].mean(), red[0].mean()) == pytest.approx((420 - 14, 34), abs=3)
    assert (blue[1].mean(), blue[0].mean()) == pytest.approx((66, 400 - 48), abs=3)


def test_a_filling_covers_the_rectangle_cell_by_cell():
    axes = Axes("t", across="a", up="u", x=(0, 1), y=(1, 0))
    axes.fill(np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8))
    drawn = np.asarray(axes.picture())
    assert drawn[200, 120].tolist() == [255, 0, 0]
    assert drawn[200, 380].tolist() == [0, 255, 0]


def test_values_that_are_all_alike_still_get_an_axis():
    low, high = padded(np.array([2.0, 2.0]))
    assert low < 2 < high


def test_sentences_below_a_picture_are_broken_to_its_width():
    narrow = Image.new("RGB", (330, 50))
    one, many = (captioned_sheet(narrow, ["word " * count]) for count in (4, 60))
    assert one.width == many.width == 330 + 16
    assert many.height > one.height + 100
    assert np.asarray(many)[:, -8:].min() == 255  # nothing runs over the edge
