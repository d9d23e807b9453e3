"""What the page does, without a browser: clips, pairs, uploads, sessions, and what the command refuses."""

import os
import re
import socket
import types

import av
import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner

from midway_hub.app import pair as pairs
from midway_hub.app import server
from midway_hub.app.clips import FramePair, VideoClip, looked_at
from midway_hub.app.networks import Chosen
from midway_hub.app.pair import Pair
from midway_hub.app.session import Session, Sessions
from midway_hub.app.uploads import Limits, Uploads
from midway_hub.cli import app as command
from midway_hub.dense.writing import no_progress
from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import DEFAULT_MODEL
from midway_hub.video.writer import write_video

SIZE = (96, 64)


def make_frames(count, size=SIZE):
    steps = np.linspace(0, 255, size[0])[None, :, None]
    return [np.broadcast_to((steps + 20 * n) % 256, (size[1], size[0], 3)).astype(np.uint8) for n in range(count)]


@pytest.fixture
def video(tmp_path):
    """A new video file of 10 frames, 1 second."""

    def make(name="clip.mp4", count=10, size=SIZE):
        write_video(tmp_path / "made.mp4", make_frames(count, size), fps=10)
        return (tmp_path / "made.mp4").rename(tmp_path / name)

    return make


@pytest.fixture
def picture(tmp_path):
    def make(name, size=SIZE):
        Image.fromarray(make_frames(1, size)[0]).save(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "kept", Limits(megabytes=1, seconds=5))


@pytest.fixture(scope="module")
def pico():
    return MidwayNetwork.from_pretrained(DEFAULT_MODEL)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The network sees frames of 64 pixels, so that heatmaps are quick."""
    monkeypatch.setattr(pairs, "SHORT_SIDE", 64)


@pytest.fixture
def session(video, uploads, pico):
    return Session(VideoClip(video("bundled.mp4"), "bundled"), Chosen(DEFAULT_MODEL, pico), uploads)


def noise_pair(net, size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, size[1], size[0], 3), dtype=np.uint8)
    return Pair(net, [Image.fromarray(frame) for frame in pixels])


# -- clips and pairs -----------------------------------------------------------------------------------------------


def test_large_frames_are_looked_at_smaller_and_small_ones_as_they_are():
    assert looked_at((3840, 2160), "film") == (1280, 720)
    assert looked_at((640, 360), "film") == (640, 360)


def test_frames_that_are_too_narrow_are_refused():
    with pytest.raises(ValueError, match=r"500×100 pixels .* at most 4 times the other"):
        looked_at((500, 100), "film")


def test_a_clip_streams_what_it_reads(video):
    clip = VideoClip(video(), "clip")
    streamed = [np.asarray(frame) for frame in clip.stream(2, 5)]
    assert np.array_equal(streamed, [np.asarray(frame) for frame in clip.frames([2, 3, 4])])


@pytest.mark.parametrize("size", [(96, 64), (101, 67), (50, 90)])
def test_a_place_lies_in_the_box_of_its_patch(tiny_net, size):
    pair = noise_pair(tiny_net, size)
    for place in [(0.0, 0.0), (0.31, 0.77), (0.999, 0.999), (1.0, 1.0)]:
        left, top, right, bottom = pair.box_of(pair.patch_at(place))
        assert left - 1e-9 <= place[0] <= right + 1e-9
        assert top - 1e-9 <= place[1] <= bottom + 1e-9


@pytest.mark.parametrize("size", [(96, 64), (101, 67), (50, 90)])
def test_an_enlarged_heatmap_is_hottest_in_the_box_of_its_hottest_patch(tiny_net, size):
    pair = noise_pair(tiny_net, size)
    heat = torch.zeros(pair.motion.grid)
    heat[2, 1] = 1.0
    large = pair.at_size(heat, (300, 200))
    y, x = np.unravel_index(large.argmax(), large.shape)
    assert pair.patch_at(((x + 0.5) / 300, (y + 0.5) / 200)) == (2, 1) == pair.peak_of(heat)


def test_the_bundled_models_heatmap_peaks_where_it_was_touched_at_every_level(pico):
    pair = noise_pair(pico, (128, 64))
    for place in [(0.2, 0.3), (0.8, 0.7)]:
        heatmaps = pair.heatmaps(place)
        assert list(heatmaps) == list(pico.config.levels)
        assert {pair.peak_of(heat) for heat in heatmaps.values()} == {pair.patch_at(place)}


def test_coarse_flow_is_in_pixels_of_the_frame(tiny_net, monkeypatch):
    pair = noise_pair(tiny_net, (192, 128))  # seen at 96×64: a patch is 32 pixels of the frame
    rows, columns = pair.motion.grid

    def one_to_the_right(net, motion, tokens, *, level, draws):
        maps = torch.full((len(tokens), rows, columns), -100.0)
        for index, token in enumerate(tokens):
            maps[index, token // columns, min(token % columns + 1, columns - 1)] = 100.0
        return maps

    monkeypatch.setattr(pairs, "perturbation_heatmaps", one_to_the_right)
    seen = []
    flow = pair.coarse_flow(2, lambda *step: seen.append(step))
    assert flow.shape == (128, 192, 2)
    assert np.allclose(flow[:, :160], (32, 0))
    assert np.allclose(flow[:, 160:], 0)
    assert [done for _, done, _ in seen] == [0, 8, 16]


# -- uploads -------------------------------------------------------------------------------------------------------


def test_a_video_is_taken_from_where_it_was(uploads, video):
    handed = video()
    clip, film = uploads.take([handed], no_progress)
    assert not handed.exists()
    assert len(clip.seconds) == 10
    assert film.suffix == ".mp4"
    assert uploads.folder in film.parents


def test_what_browsers_do_not_play_gets_a_copy_that_they_do(uploads, tmp_path):
    old = tmp_path / "old.avi"
    with av.open(str(old), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in make_frames(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    seen = []
    clip, film = uploads.take([old], lambda *step: seen.append(step))
    assert film != clip.path
    with av.open(str(film)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert seen[-1] == ("copy to play", 4, 4)


def test_no_served_file_keeps_an_ending_that_browsers_run(uploads, video):
    uploads.take([video("film.html")], no_progress)
    assert {path.suffix for path in uploads.folder.rglob("*") if path.is_file()} == {".mp4"}


def test_two_pictures_are_two_frames(uploads, picture):
    clip, film = uploads.take([picture("a.png"), picture("b.png")], no_progress)
    assert isinstance(clip, FramePair)
    assert clip.name == "a.png → b.png"
    assert film is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda v, p: [v(count=60)], r"clip.mp4 lasts 6.0 s; at most 5 s"),
        (lambda v, p: [p("a.png")], r"wanted one video, or two pictures of one size; got a.png"),
        (lambda v, p: [v(), p("a.png")], r"wanted one video"),
        (lambda v, p: [p("a.png"), p("b.png", (64, 64))], r"of one size .* a.png 96×64 and b.png 64×64"),
        (lambda v, p: [v(count=1)], r"clip.mp4 has 1 frame"),
        (lambda v, p: [], r"got nothing"),
    ],
)
def test_what_does_not_fit_is_refused_and_deleted(uploads, video, picture, make, says):
    handed = make(video, picture)
    with pytest.raises(ValueError, match=says):
        uploads.take(handed, no_progress)
    assert not any(path.exists() for path in handed)
    assert list(uploads.folder.glob("*")) == []


def test_too_large_uploads_are_refused(uploads, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(os.urandom(1_500_000))
    with pytest.raises(ValueError, match=r"large\.mp4: 2 MB; at most 1 MB are taken"):
        uploads.take([large], no_progress)


# -- sessions ------------------------------------------------------------------------------------------------------


def test_a_session_starts_in_the_middle_four_tenths_of_a_second_apart(session):
    assert (session.source, session.gap, session.target) == (2, 4, 6)


def test_frames_beyond_the_clip_are_its_ends(session):
    session.choose_frames(99, 99)
    assert (session.source, session.target) == (8, 9)
    session.choose_frames(-5, 0)
    assert (session.source, session.target) == (0, 1)


def test_the_pair_is_kept_until_frames_or_network_change(session):
    first = session.pair
    assert session.pair is first
    session.choose_frames(0, 1)
    second = session.pair
    assert second is not first
    session.use(session.chosen)
    assert session.pair is not second


def test_arrow_keys_move_by_a_patch_and_stop_at_the_edge(session):
    session.put_place((0.5, 0.5))
    row, column = session.pair.patch_at(session.place)
    session.step_place(1, -1)
    assert session.pair.patch_at(session.place) == (row - 1, column + 1)
    for _ in range(20):
        session.step_place(-1, 0)
    assert session.pair.patch_at(session.place) == (row - 1, 0)


def test_a_broken_upload_leaves_the_session_as_it_was(session, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    before = session.clip
    with pytest.raises(RuntimeError, match=r"^broken\.mp4"):
        session.open_uploaded([broken], no_progress)
    assert session.clip is before
    assert session.pair.size == SIZE


def test_another_upload_deletes_the_one_before(session, video):
    session.open_uploaded([video("one.mp4")], no_progress)
    first = session.clip.path
    session.open_uploaded([video("two.mp4")], no_progress)
    assert not first.exists()
    assert session.clip.path.exists()
    assert len(session.clip.frames([0])) == 1


def test_leaving_deletes_what_was_uploaded(video, pico, tmp_path):
    bundled = VideoClip(video("bundled.mp4"), "bundled")
    sessions = Sessions(bundled, lambda: Chosen(DEFAULT_MODEL, pico), tmp_path / "kept", Limits())
    for user in ("a", "b"):
        sessions.of(user).open_uploaded([video(f"{user}.mp4")], no_progress)
    kept = sessions.of("b").clip.path
    sessions.close("a")
    assert list((tmp_path / "kept").rglob("*.mp4")) == [kept]
    sessions.close("b")
    assert list((tmp_path / "kept").rglob("*")) == []
    assert bundled.path.exists()


def test_what_the_bundled_model_has_and_its_licence_are_told(session):
    assert session.chosen.warning is None
    assert session.chosen.facts["licence"] == "Apache-2.0"
    assert "no flow head" not in session.chosen.facts["has"]


def test_an_untrained_model_is_called_so():
    name = "midway_pico_untrained"
    assert "UNTRAINED" in Chosen(name, MidwayNetwork.from_pretrained(name)).warning


def test_a_model_of_ones_own_has_no_known_licence(tiny_net):
    chosen = Chosen("/some/folder", tiny_net)
    assert chosen.warning is None
    assert "not in the registry" in chosen.facts["licence"]


# -- tabs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_heads(session):
    pytest.importorskip("gradio", reason="the page needs the extra `app`")
    flow = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 8}
    classes = {"classes": ("road", "<sky>"), "palette": ((128, 64, 128), (70, 130, 180))}
    session.use(Chosen("/some/folder", make_tiny_net(flow_head=flow, segmentation_head=classes)))
    return session


def test_a_flow_head_gives_arrows_colours_and_their_wheel(with_heads):
    from midway_hub.app.tabs.flow import HEAD, _flow

    html = _flow(with_heads, HEAD, no_progress, arrows=True)
    assert html.count("<img") == 3
    assert "Wheel of the flow" in html
    assert re.search(r"longest vector is \d+\.\d px", html)


def test_a_segmentation_head_gives_an_overlay_and_a_legend_of_shares(with_heads):
    from midway_hub.app.tabs.segmentation import _classes

    html = _classes(with_heads, 0.6)
    assert html.count("<img") == 2
    shares = [int(share) for share in re.findall(r"</span>[^<]* (\d+)%</li>", html)]
    assert sum(shares) in (99, 100, 101)
    assert "<sky>" not in html


def test_classes_of_synthetic_worlds_are_called_so(session):
    pytest.importorskip("gradio", reason="the page needs the extra `app`")
    from midway_hub.app.tabs.segmentation import _classes

    html = _classes(session, 0.6)
    assert "mw-warn" in html
    assert "The model was taught no class of real scenes" in html
    assert "Classes of synthetic worlds over the frame" in html


def test_classes_of_real_scenes_need_no_warning(with_heads):
    from midway_hub.app.tabs.segmentation import _classes

    html = _classes(with_heads, 0.6)
    assert "synthetic" not in html
    assert "Classes over the frame" in html


@pytest.mark.parametrize(
    ("levels", "named"),
    [
        ((8, 5, 2), ["Level 8 (coarse)", "Level 5:", "Level 2 (fine)"]),
        ((9, 3), ["Level 9 (coarse)", "Level 3 (fine)"]),
        ((1,), ["Level 1:"]),
        ((7,), ["Level 7:"]),
    ],
)
def test_only_ends_of_several_levels_are_called_coarse_and_fine(session, levels, named):
    pytest.importorskip("gradio", reason="the page needs the extra `app`")
    from midway_hub.app.tabs.heatmaps import _felt

    session.use(Chosen("/some/folder", make_tiny_net(levels=levels)))
    html = _felt(session)
    assert all(words in html for words in named)
    assert ("(coarse)" in html, "(fine)" in html) == (len(levels) > 1, len(levels) > 1)


def test_features_of_every_frame_asked_for_are_shown_beside_it(with_heads):
    from midway_hub.app.tabs.features import _features

    seen = []
    html = _features(with_heads, 3, lambda *step: seen.append(step))
    assert re.findall(r"<figcaption[^>]*>(Frame \d+)[^<]*features", html) == ["Frame 0", "Frame 4", "Frame 9"]
    assert seen[-1] == ("features", 2, 3)


def test_tracks_without_points_say_what_to_do(with_heads):
    from midway_hub.app.tabs.tracks import _tracked

    with pytest.raises(ValueError, match="no points to track: click some"):
        _tracked(with_heads, "similarity", 4, no_progress)


@pytest.mark.parametrize("method", ["dynamics", "similarity"])
def test_tracks_become_a_video_that_leaves_with_the_session(with_heads, method):
    from midway_hub.app.tabs.tracks import _tracked

    with_heads.points.append((0.5, 0.5))
    html = _tracked(with_heads, method, 4, no_progress)
    film = next(with_heads.uploads.folder.rglob("tracks.mp4"))
    assert len(VideoClip(film, "tracks").seconds) == 4
    assert "Frames 2 to 5" in html
    with_heads.uploads.clear()
    assert not film.exists()


# -- starting ------------------------------------------------------------------------------------------------------


def test_without_gradio_the_command_names_the_extra(monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(command, ["app", "--no-open"])
    assert result.exit_code == 1
    assert "pip install 'midway-hub[app]'" in result.stderr


def test_an_old_gradio_is_refused_with_what_to_install(monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr(server, "LEAST_GRADIO", "99.0")
    with pytest.raises(ImportError, match=r"needs Gradio 99\.0 or later, got .*pip install -U 'midway-hub\[app\]'"):
        server.need_gradio()


def test_a_port_that_is_taken_is_refused_at_once():
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(command, ["app", "--no-open", "--port", str(port)])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize("wrong", ["--max-mb", "--max-seconds"])
def test_limits_of_nothing_are_refused(wrong):
    result = CliRunner().invoke(command, ["app", wrong, "0"])
    assert result.exit_code == 1
    assert f"{wrong} must be above 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "alone"),
    [
        ([], True),
        (["--host", "localhost"], True),
        (["--host", "::1"], True),
        (["--host", "0.0.0.0"], False),
        (["--share"], False),
    ],
)
def test_only_users_of_this_machine_may_name_any_model(monkeypatch, arguments, alone):
    seen = types.SimpleNamespace()
    monkeypatch.setattr(server, "serve", lambda options, **rest: vars(seen).update(options=options, **rest))
    result = CliRunner().invoke(command, ["app", *arguments])
    assert result.exit_code == 0, result.output
    assert seen.options.any_model is alone
    assert seen.share is ("--share" in arguments)
