import json

import numpy as np
import pytest
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import HEIGHT, WIDTH, write_clip

from midway_hub.analysis.tracking import track_points
from midway_hub.analysis.tracks import TrackedFrame, Tracks
from midway_hub.cli import app
from midway_hub.tracks import TrackLook, point_colours
from midway_hub.video import open_video


@pytest.fixture(scope="module")
def net():
    return make_tiny_net()


@pytest.fixture
def model(net, monkeypatch):
    """The network's name, without the seconds that loading takes."""
    monkeypatch.setattr("midway_hub.cli_track.load_network", lambda name, **options: net)
    return "in memory"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=7, rate=12)


def run(*arguments):
    return CliRunner().invoke(app, ["track", *map(str, arguments), "--device", "cpu"])


def facts_of(*arguments):
    ran = run(*arguments, "--json")
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


# -- the command ---------------------------------------------------------------------------------------------------


def test_tracks_of_a_video_are_a_video_with_every_frame(tmp_path, model, clip):
    out = tmp_path / "out.mp4"
    facts = facts_of(clip, "--points", "20,30;60,40.5", "-o", out, "--method", "similarity", "--size", 32, "-m", model)
    with open_video(out) as video:
        assert len(video) == facts["frames"] == 7
        assert video.width == WIDTH
        assert video.height > HEIGHT  # by the caption
        assert video.fps == pytest.approx(12)
    assert facts["points"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_the_numbers_are_those_of_the_library(tmp_path, net, model, clip, suffix):
    place = tmp_path / f"tracks{suffix}"
    options = ("--every", 3, "--size", 32, "--draws", 1, "--top", 2, "--seed", 4, "--when-lost", "ignore", "--refine")
    facts = facts_of(clip, "--grid", 2, "--tracks", place, *options, "-m", model)
    tracks = Tracks.load(place)
    with open_video(clip) as video:
        frames = list(video.get_frames([0, 3, 6]))
    rule = {"draws": 1, "top": 2, "seed": 4, "when_lost": "ignore", "refine": True}
    expected = Tracks.collect(track_points(net, frames, tracks.positions[0], size=32, **rule), every=3)
    np.testing.assert_allclose(tracks.positions, expected.positions, rtol=0, atol=1e-2)
    np.testing.assert_allclose(tracks.confidence, expected.confidence, rtol=1e-3, atol=1e-5)
    assert tracks.frames.tolist() == [0, 3, 6]
    assert tracks.about["video"] == "clip.mp4"
    assert tracks.about["options"]["seed"] == 4
    assert facts["frames"] == 3
    assert facts["out"] is None
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_without_a_place_the_video_is_tracks_mp4(tmp_path, monkeypatch, model, clip):
    monkeypatch.chdir(tmp_path)
    facts = facts_of(clip, "--grid", 2, "--method", "similarity", "--size", 32, "--every", 6, "-m", model)
    assert facts["out"] == "tracks.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["tracks.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CLIP",), "pass either points or a grid of them, got neither"),
        (("CLIP", "--points", "1,1", "--grid", "2"), "pass either points or a grid of them, got both"),
        (("CLIP", "--points", "1"), "--points must be X,Y;X,Y in pixels, such as '120,80;300,95', got '1'"),
        (("CLIP", "--points", ";"), "points must be at least one"),
        (("CLIP", "--points", "9999,1"), "point 1, (9999, 1), lies outside the frame"),
        (("CLIP", "--grid", "0"), "a grid has from 1 to"),
        (("CLIP", "--grid", "2", "--every", "0"), "every must be at least 1, got 0"),
        (("CLIP", "--grid", "2", "--method", "luck"), "method must be 'dynamics' or 'similarity', got 'luck'"),
        (("CLIP", "--grid", "2", "--level", "7"), "level 7 is not one of the network's levels"),
        (("CLIP", "--grid", "2", "--trail", "-1"), "trail must be at least 0 frames, got -1"),
        (("CLIP", "--grid", "2", "-o", "out.avi"), "videos are written as .mp4"),
        (("CLIP", "--grid", "2", "--tracks", "out.csv"), "tracks are kept as .npz or .json"),
        (("CLIP", "--grid", "2", "-o", "CLIP"), "it is what is read"),
        (("nothing.mp4", "--grid", "2"), "there is no video file nothing.mp4"),
    ],
)
def test_what_cannot_be_tracked_is_said_and_nothing_is_written(tmp_path, monkeypatch, model, clip, arguments, message):
    monkeypatch.chdir(tmp_path)
    ran = run(*(clip if argument == "CLIP" else argument for argument in arguments), "-m", model)
    assert ran.exit_code == 1
    assert message in ran.stderr
    assert list(tmp_path.iterdir()) == []


# -- pictures ------------------------------------------------------------------------------------------------------


def way(*positions, lost=(False, False)) -> list[TrackedFrame]:
    """Two points, one on its way and one that stays in a corner."""
    return [
        TrackedFrame(number, np.float32([place, (150, 100)]), np.ones(2, np.float32), np.array(lost))
        for number, place in enumerate(positions)
    ]


def drawn(tracked, **look) -> np.ndarray:
    return np.asarray(TrackLook(**look).picture(np.full((120, 160, 3), 128, np.uint8), tracked, ["frame 0"]))


def test_a_point_is_a_disc_of_its_colour_where_it_is():
    pixels = drawn(way((40, 60)))
    assert pixels[60, 40].tolist() == list(point_colours(2)[0])
    assert pixels[100, 150].tolist() == list(point_colours(2)[1])
    assert pixels[20, 20].tolist() == [128, 128, 128]


def test_the_trail_leads_back_as_far_as_is_wanted():
    tracked = way((20, 30), (60, 30), (100, 30))
    for trail, seen in ((2, (True, True)), (1, (False, True)), (0, (False, False))):
        pixels = drawn(tracked, trail=trail).astype(int)
        assert tuple(bool(np.ptp(pixels[30, x]) > 20) for x in (40, 80)) == seen


def test_a_lost_point_is_a_faint_cross_without_a_trail():
    followed = drawn(way((20, 30), (60, 30)), numbers=False).astype(int)
    lost = drawn(way((20, 30), (60, 30), lost=(True, False)), numbers=False).astype(int)
    assert np.ptp(followed[30, 40]) > 20
    assert np.ptp(lost[30, 40]) == 0
    assert 0 < np.ptp(lost[30, 60]) < np.ptp(followed[30, 60])


def test_all_pictures_of_a_video_have_one_size():
    look, frame = TrackLook(), np.zeros((37, 53, 3), np.uint8)
    pictures = [look.picture(frame, way((9, 9)), [f"frame {number}", "x" * 99]) for number in (1, 10_000)]
    assert len({picture.size for picture in pictures}) == 1
    assert pictures[0].width == 53


def test_points_have_different_colours_that_do_not_depend_on_how_many_there_are():
    assert len(set(point_colours(60))) == 60
    assert point_colours(60)[:3] == point_colours(3)


def test_points_carry_numbers_unless_there_are_very_many():
    with_numbers, without = drawn(way((40, 60))), drawn(way((40, 60)), numbers=False)
    assert (with_numbers != without).any()
    assert Image.fromarray(with_numbers).size == Image.fromarray(without).size
