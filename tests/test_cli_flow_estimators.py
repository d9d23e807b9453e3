"""`midway-hub flow` with a correlation head, with estimators by others, and with several side by side."""

import contextlib
import dataclasses
import json
import time

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from test_correlation_head import HEAD
from typer.testing import CliRunner
from video_clips import write_clip

from midway_hub.cli import app
from midway_hub.dense import clip_flow, flow_between
from midway_hub.dense.comparison import compare_video, options_by_kind
from midway_hub.devices import native_bfloat16
from midway_hub.flow_io import read_flow
from midway_hub.flow_peers import DIS, is_peer, make_peer
from midway_hub.models.occlusion import occluded
from midway_hub.video import open_video

pytest.importorskip("cv2")


DPT = {"layer_dims": (8, 8, 8, 8), "feature_dim": 8, "last_dim": 4, "tile": (32, 48)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("correlation")
    make_tiny_net(target_network="shared", flow_head=HEAD).save_pretrained(folder / "net")
    make_tiny_net(flow_head=DPT).save_pretrained(folder / "dpt")
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((130, 90), Image.Resampling.BICUBIC)
    for number in range(3):
        picture.crop((2 * number, number, 110 + 2 * number, 80 + number)).save(folder / f"{number}.png")
    return folder


def run(*arguments):
    ran = CliRunner().invoke(app, ["flow", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


def pair(folder):
    return folder / "0.png", folder / "1.png"


def test_dis_writes_what_opencv_estimates(folder, tmp_path):
    assert run(*pair(folder), "-o", tmp_path / "a.flo", "-m", "dis", "--json")[0] == 0
    first, second = (np.asarray(Image.open(path)) for path in pair(folder))
    expected = np.moveaxis(DIS()(first, second), 0, -1)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo").flow, expected)
    assert np.abs(np.median(expected, axis=(0, 1)) - (-2, -1)).max() < 0.2  # what the crops moved by


def test_flow_back_and_occlusions_are_files_beside(folder, tmp_path):
    code, out, _ = run(*pair(folder), "-o", tmp_path / "a.flo", "-m", "dis", "--both", "--json")
    assert code == 0
    assert [path.rpartition("/")[2] for path in json.loads(out)["both"]] == ["a_backward.flo", "a_occluded.png"]
    forward, backward = (read_flow(tmp_path / name).flow for name in ("a.flo", "a_backward.flo"))
    hidden = np.asarray(Image.open(tmp_path / "a_occluded.png")) == 255
    torch_flows = [torch.from_numpy(np.ascontiguousarray(flow)).movedim(-1, 0)[None] for flow in (forward, backward)]
    assert np.array_equal(hidden, occluded(*torch_flows)[0].numpy())
    assert 0 < hidden.mean() < 0.5


def test_numbers_in_kitti_s_form_have_their_flow_back_in_it(folder, tmp_path):
    assert run(*pair(folder), "-o", tmp_path / "a.png", "-m", "dis", "--kitti", "--both")[0] == 0
    assert run(folder, "-o", tmp_path / "out", "-m", "dis", "--format", "kitti", "--both")[0] == 0
    for path in (tmp_path / "a_backward.png", tmp_path / "out/0_backward.png"):
        assert np.abs(np.median(read_flow(path).flow, axis=(0, 1)) - (2, 1)).max() < 0.2


def test_reading_frames_is_not_the_first_estimator_s_time(folder, tmp_path, monkeypatch):
    from midway_hub.dense import comparison

    write_clip(tmp_path / "clip.mp4", 12)
    opened = comparison.open_frames

    @contextlib.contextmanager
    def slow(*arguments, **options):
        with opened(*arguments, **options) as found:
            frames = found.frames

            def slowly():
                for frame in frames:
                    time.sleep(0.1)
                    yield frame

            yield dataclasses.replace(found, frames=slowly())

    monkeypatch.setattr(comparison, "open_frames", slow)
    dis = make_peer("dis")
    facts = comparison.compare_video({"a": (dis, {}), "b": (dis, {})}, tmp_path / "clip.mp4", tmp_path / "c.gif")
    assert facts["compared"]["a"]["seconds"] < 0.08


def test_a_folder_holds_both_and_a_second_run_makes_nothing_anew(folder, tmp_path):
    command = (folder, "-o", tmp_path / "out", "-m", folder / "net", "--both", "--format", "flo,png", "--json")
    code, out, err = run(*command)
    assert code == 0, err
    assert json.loads(out)["pairs"] == 2
    names = sorted(path.name for path in (tmp_path / "out").glob("0*"))
    assert names == ["0.flo", "0.png", "0_backward.flo", "0_occluded.png"]
    (tmp_path / "out/1_occluded.png").unlink()
    again = json.loads(run(*command)[1])
    assert (again["pairs"], again["finished_before"]) == (1, 1)
    assert run(*command[:-3], "flo", "--updates", "5")[0] != 0  # made otherwise


def test_the_video_s_flow_starts_from_the_flow_before(folder, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    code, _, err = run(tmp_path / "clip.mp4", "-o", tmp_path / "out", "-m", folder / "net", "--every", "8")
    assert code == 0, err
    from midway_hub import MidwayNetwork

    net = MidwayNetwork.from_pretrained(folder / "net")
    with open_video(tmp_path / "clip.mp4") as video:
        frames = list(video.get_frames(list(range(0, len(video), 8))))
    estimates = list(clip_flow(net, frames))
    written = sorted((tmp_path / "out").glob("*.flo"))
    assert len(written) == len(estimates) == len(frames) - 1
    for path, estimate in zip(written, estimates, strict=True):
        np.testing.assert_allclose(read_flow(path).flow, estimate.flow, atol=1e-3)


def test_fast_is_half_the_size_four_updates_and_half_the_precision_where_there_is_one(folder, tmp_path):
    code, _, err = run(*pair(folder), "-o", tmp_path / "fast.npy", "-m", folder / "net", "--fast")
    assert code == 0
    dtype = "bfloat16" if native_bfloat16() else "float32"
    assert f"fast: size half, {dtype}; a correlation head takes 4 updates" in " ".join(err.split())
    from midway_hub import MidwayNetwork

    net = MidwayNetwork.from_pretrained(folder / "net", dtype=dtype)
    expected = flow_between(net, [Image.open(path) for path in pair(folder)], size="half", updates=4)
    np.testing.assert_allclose(np.load(tmp_path / "fast.npy"), expected, atol=1e-3)


def test_a_comparison_is_one_picture_of_all_under_one_scale(folder, tmp_path):
    code, out, err = run(
        *pair(folder), "-o", tmp_path / "c.png", "-m", folder / "net", "--compare", "dis,raft_small=random", "--json"
    )
    assert code == 0, err
    compared = json.loads(out)["compared"]
    assert list(compared) == [str(folder / "net"), "dis", "raft_small=random"]
    assert all(figures["seconds"] > 0 for figures in compared.values())
    assert compared[str(folder / "net")]["distance_to_first"] == 0
    assert compared["dis"]["distance_to_first"] > 0
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 5 * 110  # two images, three estimates


def test_a_comparison_of_a_video_is_a_video(folder, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    code, out, err = run(
        tmp_path / "clip.mp4",
        "-o",
        tmp_path / "c.mp4",
        "-m",
        "dis",
        "--compare",
        folder / "net",
        "--every",
        "8",
        "--json",
    )
    assert code == 0, err
    facts = json.loads(out)
    with open_video(tmp_path / "c.mp4") as video, open_video(tmp_path / "clip.mp4") as clip:
        assert len(video) == facts["pairs"]
        assert video.get_frames([0]).shape[2] >= 3 * clip.get_frames([0]).shape[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-m", "dis", "--size", "64"), "dis has no size: it sees whole frames at their own size"),
        (("-m", "dis", "--updates", "3"), "dis has no updates"),
        (("-m", "dis", "--fast"), "--fast is of checkpoints; dis runs as it is"),
        (("-m", "dis=weights.pth"), "dis takes no weights"),
        (("-m", "raft_large=missing.pth"), "no weights of RAFT at missing.pth"),
        (("-m", "dis", "--compare", ","), "--compare names estimators"),
        (("-m", "dis", "--compare", "raft_small=random", "--both"), "--compare writes one picture or video"),
        (("-m", "dis", "--compare", "raft_small=random", "--arrows"), "--compare writes one picture or video"),
        (("-m", "dis", "--compare", "dis"), "names one estimator twice"),
        (("-m", "dis", "--updates", "0"), "dis has no updates"),
        (("-m", "dis", "--dtype", "bfloat16"), "--dtype bfloat16 is of checkpoints; dis runs as it is"),
        (("-m", "dis", "--compare", "raft_small=random", "--fast"), "dis and raft_small=random run as they are"),
        (("-m", "dis", "--compare", "raft_small=random", "--size", "64"), "none of dis, raft_small=random takes size"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, tmp_path, options, message):
    code, _, err = run(*pair(folder), "-o", tmp_path / "a.png", *options)
    assert code != 0
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("dis", ("--size", "64"), "dis has no size"),
        ("net", ("--updates", "0"), "updates must be a whole number from 1 to 256, got 0"),
        ("net", ("--tile", "32x48"), "takes no windows; leave the tile out"),
        ("dpt", ("--updates", "3"), "updates and initial are of correlation heads"),
        ("dpt", ("--overlap", "0.5"), "name a tile too"),
        ("dpt", ("--tile", "32x48", "--overlap", "1"), "overlap must be at least 0 and below 1, got 1.0"),
    ],
)
def test_options_that_a_model_does_not_take_leave_no_folder_behind(folder, tmp_path, model, options, message):
    name = model if model == "dis" else folder / model
    code, _, err = run(folder, "-o", tmp_path / "out", "-m", name, *options)
    assert code != 0
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_of_results_called_like_an_estimator_is_not_taken_for_a_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = (folder, "-o", "dis", "-m", "dis", "--json")
    assert json.loads(run(*command)[1])["pairs"] == 2
    assert json.loads(run(*command)[1])["finished_before"] == 2


def test_frames_whose_files_would_be_one_are_refused(folder, tmp_path):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.png", "a_backward.png", "b.png")):
        (tmp_path / "in" / name).write_bytes((folder / f"{number}.png").read_bytes())
    code, _, err = run(tmp_path / "in", "-o", tmp_path / "out", "-m", "dis", "--both")
    assert code != 0
    assert "two frames would write a_backward.flo" in " ".join(err.split())
    assert run(tmp_path / "in", "-o", tmp_path / "forward", "-m", "dis")[0] == 0
    assert sorted(path.name for path in (tmp_path / "forward").glob("*.flo")) == ["a.flo", "a_backward.flo"]


def test_a_list_with_frames_too_small_for_dis_goes_on_with_the_others(folder, tmp_path):
    for number in range(2):
        Image.new("RGB", (9, 8)).save(tmp_path / f"tiny{number}.png")
    first, second = pair(folder)
    (tmp_path / "pairs.txt").write_text(f"tiny0.png tiny1.png\n{first} {second}\n")
    code, out, _ = run(tmp_path / "pairs.txt", "-o", tmp_path / "out", "-m", "dis", "--json")
    assert code == 1
    assert json.loads(out)["pairs"] == 1
    assert "dis does not take frames of 8×9" in next(iter(json.loads(out)["failed"].values()))


@pytest.mark.parametrize("suffix", ["", ".gif"])
def test_fast_takes_four_updates_of_videos_too(folder, tmp_path, suffix, monkeypatch):
    from midway_hub import MidwayNetwork

    write_clip(tmp_path / "clip.mp4", 4)
    seen = []
    real = MidwayNetwork.flow_of_clip

    def watched(net, frames, **options):
        seen.append(options["updates"])
        return real(net, frames, **options)

    monkeypatch.setattr(MidwayNetwork, "flow_of_clip", watched)
    for options, updates in ((("--fast",), 4), (("--fast", "--updates", "3"), 3)):
        out = tmp_path / f"out{updates}{suffix}"
        code, _, err = run(tmp_path / "clip.mp4", "-o", out, "-m", folder / "net", *options)
        assert code == 0, err
        assert f"a correlation head takes {updates} updates" in " ".join(err.split())
        assert {*seen} == {updates}
        seen.clear()


def test_heads_of_both_kinds_are_compared_each_with_the_options_of_its_own(folder, tmp_path):
    from midway_hub import MidwayNetwork

    nets = {name: MidwayNetwork.from_pretrained(folder / name) for name in ("net", "dpt")} | {"dis": make_peer("dis")}
    asked = {"size": "half", "tile": (32, 48), "overlap": 0.5, "updates": 3}
    taken = {name: options for name, (_, options) in options_by_kind(nets, asked).items()}
    assert taken == {
        "net": {"size": "half", "updates": 3},
        "dpt": {"size": "half", "tile": (32, 48), "overlap": 0.5},
        "dis": {},
    }
    others = f"{folder / 'net'},{folder / 'dpt'}"
    command = (*pair(folder), "-o", tmp_path / "c.png", "-m", "dis", "--compare", others, "--fast", "--json")
    code, out, err = run(*command)
    assert code == 0, err
    assert len(json.loads(out)["compared"]) == 3
    with pytest.raises(ValueError, match="none of dpt takes updates; leave it out"):
        options_by_kind({"dpt": nets["dpt"]}, {"size": None, "updates": 3})


class Growing:
    """An estimator whose flow gets longer by a pixel from pair to pair."""

    def __init__(self, longer=0):
        self.name, self.settings, self.pairs, self.longer = "growing", {}, 0, longer

    def __call__(self, first, second):
        self.pairs += 1
        flow = np.zeros((2, *first.shape[:2]), np.float32)
        flow[0] = self.pairs + self.longer
        return flow


def test_a_comparison_of_a_video_tells_the_means_of_all_its_pairs(tmp_path):
    write_clip(tmp_path / "clip.mp4", 4)
    estimators = {"a": (Growing(), {}), "b": (Growing(longer=2), {})}
    facts = compare_video(estimators, tmp_path / "clip.mp4", tmp_path / "c.gif")
    assert facts["pairs"] == 3
    assert facts["compared"]["a"]["mean_flow"] == pytest.approx((1 + 2 + 3) / 3)
    assert facts["compared"]["b"]["mean_flow"] == pytest.approx((3 + 4 + 5) / 3)
    assert facts["compared"]["b"]["distance_to_first"] == pytest.approx(2)
    assert "note" not in facts


def test_a_comparison_says_that_a_video_is_cut_off(tmp_path, sample_videos):
    clip = sample_videos / "derived_truncated_faststart_udacity.mp4"
    facts = compare_video({"dis": (make_peer("dis"), {})}, clip, tmp_path / "c.mp4", every=6)
    assert facts["note"].startswith("only the first 13 frames can be read")


def test_estimators_by_others_are_told_from_checkpoints_by_their_names():
    assert is_peer("dis")
    assert is_peer("raft_small=file.pth")
    assert is_peer("ptlflow:pwcnet")
    assert not is_peer("midway_pico")
    assert not is_peer("discus")
    with pytest.raises(ValueError, match="there is no estimator 'farneback'; there are: dis, raft_large"):
        make_peer("farneback")


def test_a_model_of_ptlflow_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ptlflow", None)
    with pytest.raises(ImportError, match="ptlflow:raft needs the package ptlflow: pip install"):
        make_peer("ptlflow:raft")
