"""Flow of a clip in one pass: frames read and encoded once, colours that follow the motion, and what is in reach."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import HEIGHT, WIDTH, numbered_frame, write_clip

from midway_hub import MidwayNetwork
from midway_hub.app.demo import read_clip, sample_clip
from midway_hub.app.head_figures import flow_figure
from midway_hub.cli import app
from midway_hub.dense import clip_flow, flow_between, write_pair_flow, write_video_flow
from midway_hub.dense.colour_scale import ColourScale, step_above
from midway_hub.dense.flow_files import FlowLook
from midway_hub.dense.reach import flow_reach, flow_size, is_out_of_reach
from midway_hub.processing import MidwayImageProcessor
from midway_hub.video import open_video
from midway_hub.video.pyav_reader import PyAVReader

HEAD = {"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4}


@pytest.fixture(scope="module")
def net():
    return make_tiny_net(target_network="shared", flow_head=HEAD)


@pytest.fixture(scope="module")
def pico():
    return MidwayNetwork.from_pretrained("midway_pico")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=7, rate=12)


def numbered(count):
    return [numbered_frame(number) for number in range(count)]


# -- one pass ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_network", ["shared", "ema"])
@pytest.mark.parametrize("options", [{}, {"size": 48}, {"size": None}, {"tile": (32, 32), "size": 64}])
def test_flow_of_a_clip_is_the_flow_of_its_pairs(target_network, options):
    net, frames = make_tiny_net(target_network=target_network, flow_head=HEAD), numbered(4)
    found = list(clip_flow(net, iter(frames), **options))
    assert len(found) == 3
    for estimate, pair in zip(found, pairwise(frames), strict=True):
        np.testing.assert_allclose(estimate.flow, flow_between(net, pair, **options), atol=1e-4, rtol=1e-4)
        assert estimate.flow.shape == (HEIGHT, WIDTH, 2)


def test_a_video_is_read_once_and_every_frame_encoded_once(tmp_path, net, clip, monkeypatch):
    read, encoded = [], []
    decode, encode = PyAVReader._read, net.student.tokens
    monkeypatch.setattr(PyAVReader, "_read", lambda self, indices: (read.extend(indices), decode(self, indices))[1])
    monkeypatch.setattr(
        net.student, "tokens", lambda images, layers: (encoded.extend(images), encode(images, layers))[1]
    )
    facts = write_video_flow(net, clip, tmp_path / "out.mp4", reader="pyav")
    assert facts["pairs"] == 6
    assert read == list(range(7))
    assert len(encoded) == 7


def test_flow_comes_as_the_frames_do(net):
    asked = []

    def coming():
        for number in range(5):
            asked.append(number)
            yield numbered_frame(number)

    found = clip_flow(net, coming())
    next(found)
    assert len(asked) == 2
    next(found)
    assert len(asked) == 3


@pytest.mark.parametrize("sizes", [[(64, 96), (64, 96), (96, 64)], [(64, 96), (32, 48)], [(50, 50), (50, 51)]])
def test_frames_of_changing_size_are_named(net, sizes):
    frames = [np.zeros((*size, 3), np.uint8) for size in sizes]
    last = len(sizes) - 1
    with pytest.raises(ValueError, match=rf"must be of one size .*frame {last} is {sizes[-1][0]}×{sizes[-1][1]}"):
        list(clip_flow(net, frames, size=None))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_have_no_flow(net, count):
    assert list(clip_flow(net, numbered(count))) == []


# -- the scale of the colours --------------------------------------------------------------------------------------


def field(length):
    return np.full((20, 30, 2), (length, 0), np.float32)


def scales(lengths, **options):
    scale = ColourScale(**options)
    return [scale.of(field(length)) for length in lengths], scale


@pytest.mark.parametrize(
    ("length", "step"), [(0, 1), (0.2, 1), (1, 1), (1.01, 2), (2, 2), (3, 5), (9.9, 10), (10, 10), (11, 20), (480, 500)]
)
def test_the_scale_is_a_round_number_above_the_motion(length, step):
    assert step_above(length) == pytest.approx(step)


def test_a_motion_that_grows_is_never_saturated_for_more_than_the_pairs_that_a_cut_may_take():
    lengths = [0.5 * 1.15**number for number in range(40)]
    found, scale = scales(lengths)
    assert found == sorted(found)
    for number, (length, largest) in enumerate(zip(lengths, found, strict=True)):
        assert largest >= lengths[max(0, number - 2)]
        assert largest >= 0.75 * length
        assert largest <= max(1, 2.5 * length)
    assert list(scale.steps.values()) == [1, 2, 5, 10, 20, 50, 100, 200][: len(scale.steps)]


def test_a_single_pair_across_a_cut_does_not_count():
    assert scales([2, 2, 2, 400, 2, 2])[0] == [2] * 6


def test_the_scale_is_held_where_motion_gets_less():
    assert scales([9, 9, 9, 1, 1, 1, 1])[0] == [10] * 7


def test_a_few_wild_pixels_do_not_count():
    flow = field(3)
    flow[0, :5] = 1e6
    assert ColourScale().of(flow) == 5


def test_a_fixed_scale_stays_what_it_is():
    found, scale = scales([1, 50, 900], fixed=8.0)
    assert found == [8.0] * 3
    assert scale.steps == {0: 8.0}


def test_a_video_whose_motion_grows_says_from_where_on_its_colours_stand_for_what(tmp_path, net, clip, monkeypatch):
    lengths = iter([0.5, 0.5, 30, 30, 30, 30])
    monkeypatch.setattr("midway_hub.dense.colour_scale.common_length", lambda flow: next(lengths))
    facts = write_video_flow(net, clip, tmp_path / "out.mp4")
    assert facts["colours_full_at"] == 50
    assert facts["colours_grew"] == {"from pair 0": 1.0, "from pair 3": 20.0, "from pair 4": 50.0}


@pytest.mark.parametrize("name", ["--max-flow", "--scale"])
def test_the_scale_may_be_fixed(tmp_path, net, clip, monkeypatch, name):
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda model, **options: net)
    ran = CliRunner().invoke(app, ["flow", str(clip), "-o", str(tmp_path / "out.mp4"), name, "7", "--json"])
    facts = json.loads(ran.stdout)
    assert facts["colours_full_at"] == 7
    assert "colours_grew" not in facts


# -- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.mp4", "out.webm", "out.gif"])
def test_the_frame_may_stand_beside_its_flow(tmp_path, net, clip, name):
    facts = write_video_flow(net, clip, tmp_path / name, look=FlowLook(beside=True, legend=False))
    assert facts["pairs"] == 6
    if name.endswith(".gif"):
        with Image.open(tmp_path / name) as picture:
            seen = np.asarray(picture.convert("RGB"))[None]
    else:
        with open_video(tmp_path / name) as video:
            seen = video.get_frames(range(6))
    assert seen.shape[1:] == (HEIGHT, 2 * WIDTH, 3)
    for number, picture in enumerate(seen):
        assert np.abs(picture[:, :WIDTH].astype(int) - numbered_frame(number)).mean() < 12


def test_a_picture_of_a_pair_may_have_its_frame_beside_it(tmp_path, net):
    for number in (0, 1):
        Image.fromarray(numbered_frame(number)).save(tmp_path / f"{number}.png")
    pair = [tmp_path / "0.png", tmp_path / "1.png"]
    write_pair_flow(net, pair, tmp_path / "out.png", look=FlowLook(beside=True))
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (2 * WIDTH, HEIGHT)
        assert np.array_equal(np.asarray(picture)[:, :WIDTH], numbered_frame(0))


# -- one default size, and what is in reach ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "frame", "options", "size"),
    [
        ({"tile": [64, 64], "tiled": True}, (720, 1280), {}, 128),
        ({"tile": [64, 64], "tiled": True}, (1280, 720), {}, 128),
        ({"tile": [64, 64], "tiled": True}, (100, 300), {}, 100),
        ({"tile": [320, 384], "tiled": True}, (720, 1280), {}, 384),
        ({"tile": [320, 384]}, (720, 1280), {}, 384),
        ({"tile": [64, 64]}, (720, 1280), {"tile": (96, 128)}, 192),
        ({"tile": [64, 64], "tiled": True}, (720, 1280), {"size": None}, 720),
        ({"tile": [64, 64], "tiled": True}, (720, 1280), {"size": 300}, 300),
    ],
)
def test_frames_are_seen_at_the_size_that_suits_the_head(head, frame, options, size):
    assert flow_size(make_tiny_net(flow_head=HEAD | head), frame, **options) == size


def test_command_page_and_demo_show_one_flow_of_a_pair(tmp_path, pico, monkeypatch):
    from midway_hub.app import head_figures
    from midway_hub.app.pair import Pair
    from midway_hub.app.tabs import flow as tab

    frames = [frame.resize((256, 144)) for frame in read_clip(sample_clip(), 2)[1].frames]
    shown = {}
    for module in (head_figures, tab):
        monkeypatch.setattr(
            module,
            "common_scale",
            lambda flows, name=module.__name__: shown.setdefault(name, flows[0]) is None or 9.0,
        )
    flow_figure(pico, frames, (0.0, 0.4), tmp_path, lambda *step: None)
    session = type("Session", (), {"chosen": type("Chosen", (), {"net": pico})})()
    session.pair = Pair(pico, frames)
    tab._flow(session, tab.HEAD, lambda *step: None, arrows=False)
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"{number}.png")
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda model, **options: pico)
    pair = [str(tmp_path / f"{number}.png") for number in (0, 1)]
    assert CliRunner().invoke(app, ["flow", *pair, "-o", str(tmp_path / "out.npy"), "--json"]).exit_code == 0
    written = np.load(tmp_path / "out.npy")
    assert len(shown) == 2
    for flow in shown.values():
        np.testing.assert_allclose(flow, written, atol=1e-3)


def shifted(pixels, short_side=320):
    """The first frame of the bundled clip, smaller, and what a camera sees that has turned by some pixels."""
    frame = read_clip(sample_clip(), 2)[0].frames[0]
    frame = frame.resize((round(frame.width * short_side / frame.height), short_side))
    width, height = frame.size
    return [frame.crop((pixels, 0, width, height)), frame.crop((0, 0, width - pixels, height))]


@pytest.fixture(scope="module")
def lost():
    """A head of windows of 64 pixels that says of everything that it moves by 10 pixels to the right."""
    net = make_tiny_net(target_network="shared", flow_head={**HEAD, "tile": [64, 64], "tiled": True})
    project = net.flow_head.dpt.output.project
    with torch.no_grad():
        project.weight.zero_()
        project.bias.copy_(torch.tensor([10.0, 0.0, 0.0]))
    return net


@pytest.mark.parametrize("pixels", [12, 24, 40])
def test_motion_within_reach_is_told_at_the_frames_own_size(pico, pixels):
    (estimate,) = clip_flow(pico, shifted(pixels))
    assert estimate.reach == flow_reach(pico) > 2 * pixels
    assert not estimate.out_of_reach
    assert np.median(np.hypot(estimate.flow[..., 0] - pixels, estimate.flow[..., 1])) < 0.5


def test_motion_beyond_reach_is_noted(lost):
    assert flow_reach(lost) == 8
    (estimate,) = clip_flow(lost, shifted(60))
    assert estimate.reach == 8 * 320 / 128  # two windows of 64 to the short side
    assert np.allclose(estimate.flow, [25, 0], atol=0.1)
    assert estimate.out_of_reach


def test_a_smaller_size_reaches_further(lost, pico):
    near, far = (next(clip_flow(lost, shifted(60), size=size)) for size in (128, 64))
    assert far.reach == 2 * near.reach
    assert next(clip_flow(pico, shifted(60), size="half")).reach == pytest.approx(2 * flow_reach(pico), rel=0.02)


def test_noise_over_frames_that_stand_still_is_in_reach(pico):
    frame = np.asarray(shifted(1)[0])
    noisy = np.clip(frame + np.random.default_rng(0).normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
    (estimate,) = clip_flow(pico, [frame, noisy])
    assert not estimate.out_of_reach


def test_flow_that_explains_the_frames_is_in_reach_however_long():
    tall = torch.rand(1, 3, 40, 200, generator=torch.Generator().manual_seed(0))
    source, target = tall[..., 30:130], tall[..., 10:110]  # what was at x is at x + 20
    flow = torch.zeros(1, 2, 40, 100)
    flow[:, 0] = 20
    assert not is_out_of_reach(source, target, flow, reach=8)
    assert is_out_of_reach(source, target, -flow, reach=8)
    assert not is_out_of_reach(source, target, 0.1 * flow, reach=8)


def test_the_note_is_a_field_of_json_and_a_line_of_stderr(tmp_path, lost, pico, monkeypatch):
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda model, **options: lost)
    for number, frame in enumerate(shifted(60)):
        frame.save(tmp_path / f"{number}.png")
    command = ["flow", str(tmp_path / "0.png"), str(tmp_path / "1.png"), "-o", str(tmp_path / "out.flo")]
    facts = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert facts["reach"] == 20.0
    assert facts["note"].startswith("motion was probably out of reach in this pair")
    ran = CliRunner().invoke(app, command)
    assert "note: motion was probably out of reach" in ran.stderr
    assert "out of reach" not in ran.stdout
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda model, **options: pico)
    near = [*command[:-1], str(tmp_path / "near.flo"), "--json"]
    assert "note" not in json.loads(CliRunner().invoke(app, near).stdout)


def test_the_default_of_a_correlation_head_is_the_frames_own_size(pico):
    pair = shifted(24)
    inputs = MidwayImageProcessor(fit="shortest", size=320, multiple=1)(pair)
    with torch.no_grad():
        flow = pico.flow(*inputs["pixel_values"].split(1)).flow.expand(2, -1, -1, -1)
    expected = pico.image_processor.undo_flow(flow, inputs.geometry)[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(flow_between(pico, pair), expected, atol=1e-3)


def test_the_default_is_that_of_a_processor_of_that_size(lost):
    pair = shifted(24)
    processor = MidwayImageProcessor(fit="shortest", size=128, multiple=1)
    inputs = processor(pair)
    with torch.no_grad():
        flow = lost.flow(*inputs["pixel_values"].split(1)).flow.expand(2, -1, -1, -1)
    expected = processor.undo_flow(flow, inputs.geometry)[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(flow_between(lost, pair), expected, atol=1e-3)
