"""What the page does, without a browser: clips, pairs, uploads, sessions, and what the command refuses."""

import os
import re
import socket
import threading
import types
from concurrent.futures import ThreadPoolExecutor

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
from midway_hub.app.networks import Chosen, Networks
from midway_hub.app.pair import Pair
from midway_hub.app.session import UPLOAD, Session, Sessions
from midway_hub.app.uploads import Limits, Uploads
from midway_hub.app.work import StoppedError, Works, counted, stoppable
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

    def one_to_the_right(net, motion, *, level, draws, progress):
        count = rows * columns
        maps = torch.full((count, rows, columns), -100.0)
        for token in range(count):
            progress(token * draws, count * draws)
            maps[token, token // columns, min(token % columns + 1, columns - 1)] = 100.0
        return maps

    monkeypatch.setattr(pairs, "perturbation_heatmaps", one_to_the_right)
    seen = []
    flow = pair.coarse_flow(2, lambda *step: seen.append(step))
    assert flow.shape == (128, 192, 2)
    assert np.allclose(flow[:, :160], (32, 0))
    assert np.allclose(flow[:, 160:], 0)
    assert seen == [("directions", 4 * token, 96) for token in range(24)]


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


@pytest.mark.parametrize("head", ["flow", "segmentation"])
def test_a_model_without_a_head_is_told_which_models_have_one(head):
    bare = MidwayNetwork.from_pretrained("midway_pico_untrained")
    words = Chosen("/some/folder", bare).lacks(head)
    assert words.startswith(f"/some/folder has no {head} head. Models that have one: ")
    assert DEFAULT_MODEL in words


@pytest.mark.parametrize("head", ["flow", "segmentation"])
def test_of_a_head_that_is_there_nothing_is_lacking(head, session):
    assert session.chosen.lacks(head) == ""


# -- networks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch):
    """Names that were loaded; those of `slow` are loaded once its event is set."""
    found = types.SimpleNamespace(names=[], slow={})

    def load(name, **options):
        found.names.append(name)
        if name in found.slow:
            assert found.slow[name].wait(10)
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr("midway_hub.app.networks.MidwayNetwork.from_pretrained", load)
    return found


def test_nobody_waits_for_a_model_that_another_user_loads(loads):
    networks = Networks("cpu", always="first")
    networks.load("first")
    loads.slow["large"] = threading.Event()
    with ThreadPoolExecutor(2) as others:
        waiting = [others.submit(networks.load, "large") for _ in range(2)]
        assert networks.load("first").name == "first"
        assert networks.load("small").name == "small"
        assert not any(one.done() for one in waiting)
        loads.slow["large"].set()
        assert waiting[0].result() is waiting[1].result()
    assert sorted(loads.names) == ["first", "large", "small"]


def test_a_model_that_could_not_be_loaded_is_tried_again(loads, monkeypatch):
    networks = Networks("cpu")
    with monkeypatch.context() as broken:
        broken.setattr(networks, "_load", lambda name: (_ for _ in ()).throw(OSError("no such weights")))
        with pytest.raises(OSError, match="no such weights"):
            networks.load("mine")
    assert networks.load("mine").name == "mine"


def test_the_model_that_users_start_with_stays_whatever_else_is_used(loads):
    networks = Networks("cpu", always="first")
    for name in ("first", "a", "b", "c", "d", "first", "d", "c"):
        networks.load(name)
    assert loads.names == ["first", "a", "b", "c", "d"]


# -- long work -----------------------------------------------------------------------------------------------------


def test_the_newer_work_of_a_kind_ends_the_older_and_leaves_other_kinds_alone():
    works = Works()

    def overtaken():
        with works.begin("flow") as older, works.begin("flow") as newer:
            return older, newer

    with works.begin("tracks") as other:
        with pytest.raises(StoppedError):
            overtaken()
        assert not other.stopped
    assert works.stop("flow") is False


def test_the_end_of_the_older_work_leaves_the_newer_one_to_be_stopped():
    works, net = Works(), stoppable(torch.nn.Linear(1, 1))
    began = threading.Event()

    def go_on():
        with works.begin("flow"):
            began.set()
            while True:
                net(torch.zeros(1))

    with ThreadPoolExecutor(1) as another:
        older = another.submit(go_on)
        assert began.wait(10)
        begun = works.begin("flow")
        newer = begun.__enter__()
        assert isinstance(older.exception(10), StoppedError)
        assert not newer.stopped
        assert works.stop("flow") is True
        with pytest.raises(StoppedError):
            begun.__exit__(None, None, None)


@pytest.mark.parametrize("trouble", [FileNotFoundError("its file was deleted"), ValueError("of half a file"), None])
def test_stopped_work_is_told_as_such_whatever_came_of_it(trouble):
    works = Works()

    def go_wrong():
        with works.begin("tracks"):
            assert works.stop("tracks") is True
            if trouble:
                raise trouble

    with pytest.raises(StoppedError):
        go_wrong()


def test_trouble_of_work_that_was_not_stopped_stays_what_it_is():
    with pytest.raises(FileNotFoundError, match="no such clip"), Works().begin("tracks"):
        raise FileNotFoundError("no such clip")


def test_a_network_ends_between_layers_for_the_one_whose_work_was_stopped_alone():
    net, frames = stoppable(make_tiny_net()), torch.zeros(1, 3, 32, 32)

    def encode(another):
        with Works().begin("flow") as work:
            net.encode(frames)
            work.stop()
            assert another.submit(net.encode, frames).result() is not None
            net.encode(frames)
            pytest.fail("it went on")

    with ThreadPoolExecutor(1) as another, pytest.raises(StoppedError):
        encode(another)
    assert net.encode(frames) is not None


@pytest.mark.parametrize("passes", [1, 3])
def test_passes_through_a_part_of_a_network_are_counted_for_who_makes_them(passes):
    net, frames, told = stoppable(make_tiny_net()), torch.zeros(1, 3, 32, 32), []
    with Works().begin("flow"), counted(net, lambda *step: told.append(step), "windows"):
        with ThreadPoolExecutor(1) as another:
            another.submit(net, torch.zeros(1, 2, 3, 32, 32)).result()
        for _ in range(passes):
            net(torch.zeros(1, 2, 3, 32, 32))
    net(torch.zeros(1, 2, 3, 32, 32))
    net.encode(frames)
    assert told == [("windows", done, None) for done in range(1, passes + 1)]


@pytest.mark.parametrize(
    "change",
    [
        lambda session, more: session.choose_frames(0, 1),
        lambda session, more: session.use(session.chosen),
        lambda session, more: session.open_uploaded([more], no_progress),
        lambda session, more: session.open_bundled(session.clip),
        lambda session, more: session.leave(),
    ],
)
def test_whatever_changes_what_is_looked_at_ends_what_is_computed_of_it(session, video, change):
    more = video("more.mp4")

    def compute():
        with session.work("tracks") as work:
            change(session, more)
            assert work.stopped

    with pytest.raises(StoppedError):
        compute()


@pytest.mark.parametrize("change", ["choose_frames", "use"])
def test_an_upload_goes_on_while_frames_and_model_are_chosen(session, video, change):
    def meanwhile(*_):
        session.choose_frames(0, 1) if change == "choose_frames" else session.use(session.chosen)

    with session.work(UPLOAD) as work:
        session.open_uploaded([video("one.mp4")], work.watched(meanwhile))
    assert session.clip.name == "one.mp4"


@pytest.mark.parametrize("end", [lambda session: session.open_bundled(session.clip), lambda session: session.leave()])
def test_an_upload_that_nobody_waits_for_any_more_leaves_no_file(session, video, end):
    before = session.clip
    with pytest.raises(StoppedError), session.work(UPLOAD) as work:
        session.open_uploaded([video("one.mp4")], lambda *_: (end(session), work.check()))
    assert session.clip is before
    assert list(session.uploads.folder.glob("**/*.mp4")) == []


def test_what_is_asked_for_after_its_user_has_left_is_not_begun(session):
    session.leave()
    with pytest.raises(StoppedError), session.work("tracks"):
        pytest.fail("it was begun")


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


def test_the_flow_tab_shows_what_the_target_frame_does_not(with_heads):
    from midway_hub.app.tabs.flow import COARSE, HEAD, _flow

    html = _flow(with_heads, HEAD, no_progress, arrows=True, both=True)
    assert html.count("<img") == 4
    assert "What the target frame does not show, in red" in html
    html = _flow(with_heads, COARSE, no_progress, arrows=True, both=True)
    assert html.count("<img") == 3
    assert "is told by the flow head and by DIS only" in html


@pytest.mark.parametrize("both", [False, True])
def test_the_flow_tab_shows_the_flow_of_dis_also_without_a_flow_head(session, tiny_net, both):
    pytest.importorskip("gradio", reason="the page needs the extra `app`")
    pytest.importorskip("cv2", reason="DIS needs the extra `peers`")
    from midway_hub.app.tabs.flow import DIS, _flow
    from midway_hub.dense import clip_flow
    from midway_hub.flow_peers import make_peer

    session.use(Chosen("/some/folder", tiny_net))
    html = _flow(session, DIS, no_progress, arrows=False, both=both)
    (expected,) = clip_flow(make_peer("dis"), session.pair.frames)
    longest = np.linalg.norm(expected.flow, axis=2).max()
    assert longest > 1
    assert f"longest vector is {longest:.1f} px" in html
    assert html.count("<img") == 3 + both


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


def compute(tab, session, progress):
    """Do the long work of a tab."""
    from midway_hub.app.tabs import features, flow, heatmaps, segmentation, tracks

    session.points[:] = [(0.5, 0.5), (0.2, 0.7)]
    return {
        "heatmaps": lambda: heatmaps._felt(session, progress),
        "flow": lambda: flow._flow(session, flow.HEAD, progress, arrows=True),
        "coarse flow": lambda: flow._flow(session, flow.COARSE, progress, arrows=True),
        "classes": lambda: segmentation._classes(session, 0.6, progress),
        "features": lambda: features._features(session, 3, progress),
        "tracks": lambda: tracks._tracked(session, "dynamics", 4, progress),
    }[tab]()


TABS = ("heatmaps", "flow", "coarse flow", "classes", "features", "tracks")


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_tells_how_far_its_work_is(with_heads, tab):
    stoppable(with_heads.chosen.net)
    told = []
    with with_heads.work(tab) as work:
        compute(tab, with_heads, work.watched(lambda *step: told.append(step)))
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert done[-1] > 0
    assert all(total is None or done <= total for _, done, total in told)


@pytest.mark.parametrize(
    ("tab", "at"), [*((tab, 1) for tab in TABS), ("heatmaps", 2), ("flow", 2), ("features", 2), ("tracks", 2)]
)
def test_the_work_of_every_tab_ends_at_the_next_layer_and_leaves_no_file(with_heads, tab, at):
    net = stoppable(with_heads.chosen.net)
    told, passed = [], []
    for module in net.modules():
        module.register_forward_pre_hook(lambda *_: passed.append(len(told)))

    def stop(*step):
        told.append(step)
        if len(told) == at:
            with_heads.works.stop(tab)

    def begin():
        with with_heads.work(tab) as work:
            compute(tab, with_heads, work.watched(stop))
            pytest.fail("it went on to its end")

    with pytest.raises(StoppedError):
        begin()
    assert len(told) == at
    assert passed.count(at) <= 1
    assert list(with_heads.uploads.folder.glob("**/tracks*")) == []


def test_two_users_heatmaps_at_once_are_what_each_would_see_alone(pico, uploads, video):
    stoppable(pico)
    sessions = [
        Session(VideoClip(video(f"{n}.mp4", size=(96, 64)), "clip"), Chosen(DEFAULT_MODEL, pico), uploads)
        for n in (0, 1)
    ]
    sessions[1].choose_frames(0, 3)
    alone = [session.pair.heatmaps((0.3, 0.6)) for session in sessions]
    with ThreadPoolExecutor(2) as users:
        together = list(users.map(lambda session: [session.pair.heatmaps((0.3, 0.6)) for _ in range(4)], sessions))
    for one, many in zip(alone, together, strict=True):
        for seen in many:
            for level, heat in one.items():
                torch.testing.assert_close(seen[level], heat, rtol=0, atol=1e-5)


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
