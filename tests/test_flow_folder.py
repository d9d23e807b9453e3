"""Flow of videos, folders of frames and lists of pairs as numbered files, made once and gone on with."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import numbered_frame, write_clip

from midway_hub.cli import app
from midway_hub.dense import estimates, find_flow_sources, flow_between, write_flow_folder
from midway_hub.dense.flow_files import FlowLook
from midway_hub.flow_io import read_flow
from midway_hub.models.network import MissingHeadError
from midway_hub.video import open_video


@pytest.fixture(scope="module")
def net():
    network = make_tiny_net(
        target_network="shared", flow_head={"layer_dims": [8, 8, 8, 8], "feature_dim": 8, "last_dim": 4}
    )
    with torch.no_grad():
        for parameter in network.flow_head.parameters():
            parameter.mul_(2)
    return network


@pytest.fixture
def run(net, monkeypatch):
    """Run `midway-hub flow` with the network in memory; returns exit code, facts and errors."""
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda name, **options: net)

    def command(*arguments):
        ran = CliRunner().invoke(app, ["flow", *map(str, arguments), "--device", "cpu", "--json"])
        return ran.exit_code, json.loads(ran.stdout) if ran.stdout else None, ran.stderr

    return command


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", frames=6, rate=12)


def write_frames(folder, numbers, size=(67, 101)):
    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)[: size[0], : size[1]]).save(folder / f"frame_{number}.png")
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def frames_of(clip):
    with open_video(clip) as video:
        return video.get_frames(range(len(video)))


def counting(monkeypatch):
    """Note every pair that flow is estimated of."""
    counted = []
    through = estimates.is_out_of_reach
    monkeypatch.setattr(estimates, "is_out_of_reach", lambda *tensors: (counted.append(1), through(*tensors))[1])
    return counted


# -- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["flo", "npz", "npy", "pfm"])
def test_a_video_becomes_a_file_of_numbers_per_pair(tmp_path, net, run, clip, suffix):
    code, facts, _ = run(clip, "-o", tmp_path / "out", "--format", suffix)
    assert (code, facts["pairs"], facts["finished_before"], facts["failed"]) == (0, 5, 0, {})
    assert names(tmp_path / "out") == [*(f"{number:05d}.{suffix}" for number in range(5)), "flow.json"]
    frames = frames_of(clip)
    for number in range(5):
        found = read_flow(tmp_path / "out" / f"{number:05d}.{suffix}").flow
        np.testing.assert_allclose(found, flow_between(net, frames[number : number + 2]), atol=1e-4)


def test_every_other_frame_keeps_its_number_in_the_video(tmp_path, run, clip):
    run(clip, "-o", tmp_path / "out", "--every", 2)
    assert names(tmp_path / "out") == ["00000.flo", "00002.flo", "flow.json"]


def test_pictures_and_numbers_can_be_had_at_once_and_kittis_too(tmp_path, net, run, clip):
    run(clip, "-o", tmp_path / "both", "--format", "flo,png")
    assert len(names(tmp_path / "both")) == 5 + 5 + 2
    assert Image.open(tmp_path / "both" / "00003.png").size == (128, 96)
    run(clip, "-o", tmp_path / "kitti", "--format", "kitti")
    expected = read_flow(tmp_path / "both" / "00003.flo").flow
    np.testing.assert_allclose(read_flow(tmp_path / "kitti" / "00003.png").flow, expected, atol=1 / 100)


def test_a_folder_of_frames_is_a_clip_in_the_order_of_its_numbers(tmp_path, net, run):
    frames = write_frames(tmp_path / "frames", [1, 2, 3])
    code, _, err = run(frames, "-o", tmp_path / "out")
    assert code == 0, err
    assert names(tmp_path / "out") == ["flow.json", "frame_1.flo", "frame_2.flo"]
    pair = [frames / "frame_2.png", frames / "frame_3.png"]
    expected = flow_between(net, [np.asarray(Image.open(path)) for path in pair])
    np.testing.assert_allclose(read_flow(tmp_path / "out" / "frame_2.flo").flow, expected, atol=1e-4)


def test_a_folder_of_frames_becomes_a_video_too(tmp_path, run):
    code, facts, _ = run(write_frames(tmp_path / "frames", [1, 2, 3]), "-o", tmp_path / "out.mp4")
    assert (code, facts["pairs"], facts["fps"]) == (0, 2, 24.0)
    with open_video(tmp_path / "out.mp4") as video:
        assert (len(video), video.height, video.width) == (2, 68, 102)


def test_a_tree_of_videos_and_frames_is_mirrored(tmp_path, run, clip):
    tree = tmp_path / "tree"
    write_frames(tree / "day" / "left", [0, 1])
    write_frames(tree / "alone", [0])
    (tree / "notes.csv").write_text("no frames")
    shutil.copy(clip, tree / "day" / "clip.mp4")
    code, facts, _ = run(tree, "-o", tmp_path / "out")
    assert (code, facts["pairs"]) == (0, 6)
    written = [f"day/clip.mp4/{number:05d}.flo" for number in range(5)]
    assert names(tmp_path / "out") == [*written, "day/left/frame_0.flo", "flow.json"]


def test_a_list_of_pairs_is_numbered_by_its_lines(tmp_path, net, run):
    frames = write_frames(tmp_path / "my frames", [0, 1, 2])
    listing = tmp_path / "pairs.txt"
    listing.write_text(
        "# source and target\n\nmy frames/frame_0.png\tmy frames/frame_2.png\n"
        f"{os.path.relpath(frames, tmp_path)}/frame_2.png\t{frames}/frame_1.png\n"
    )
    code, facts, err = run(listing, "-o", tmp_path / "out")
    assert (code, facts["pairs"]) == (0, 2), err
    assert names(tmp_path / "out") == ["00000.flo", "00001.flo", "flow.json"]
    pair = [np.asarray(Image.open(frames / f"frame_{number}.png")) for number in (2, 1)]
    np.testing.assert_allclose(read_flow(tmp_path / "out" / "00001.flo").flow, flow_between(net, pair), atol=1e-4)


def test_a_list_may_part_plain_names_by_spaces_and_name_videos(tmp_path, run, clip):
    write_frames(tmp_path / "frames", [0, 1])
    (tmp_path / "both.txt").write_text("frames/frame_0.png  frames/frame_1.png\nclip.mp4\nframes\n")
    code, facts, _ = run(tmp_path / "both.txt", "-o", tmp_path / "out")
    assert (code, facts["pairs"]) == (0, 1 + 5 + 1)
    assert {name.split("/")[0] for name in names(tmp_path / "out")} == {"both", "clip.mp4", "frames", "flow.json"}


def test_a_pair_that_fails_is_named_and_the_others_are_written(tmp_path, run):
    write_frames(tmp_path / "frames", [0, 1])
    write_frames(tmp_path / "small", [2], size=(40, 40))
    (tmp_path / "frames" / "no.png").write_text("no picture")
    lines = ["frame_0 small/frame_2", "frame_0 frames/frame_1", "frame_0 frames/no"]
    (tmp_path / "pairs.txt").write_text("".join(f"frames/{line.replace(' ', '.png ')}.png\n" for line in lines))
    code, facts, _ = run(tmp_path / "pairs.txt", "-o", tmp_path / "out")
    assert (code, facts["pairs"], len(facts["failed"])) == (1, 1, 2)
    assert any("must be of one size" in reason for reason in facts["failed"].values())
    assert names(tmp_path / "out") == ["00001.flo", "flow.json"]


def test_a_clip_that_fails_is_named_and_the_others_are_written(tmp_path, run, clip):
    tree = write_frames(tmp_path / "tree" / "frames", [0, 1]).parent
    (tree / "bad.mp4").write_bytes(b"no video" * 50)
    write_clip(tree / "one.mp4", frames=1)
    write_frames(tree / "odd", [0, 1])
    Image.fromarray(numbered_frame(2)).save(tree / "odd" / "frame_2.png")
    code, facts, _ = run(tree, "-o", tmp_path / "out")
    assert code == 1
    assert facts["pairs"] == 2  # of the frames, and of those before the one of another size
    assert "flow needs two" in facts["failed"]["one.mp4"]
    assert "cannot be opened as a video" in facts["failed"]["bad.mp4"]
    assert "must be of one size" in facts["failed"]["odd"]


# -- going on ------------------------------------------------------------------------------------------------------


def test_a_second_run_finds_everything_done_and_says_so(tmp_path, run, clip, monkeypatch):
    run(clip, "-o", tmp_path / "out", "--format", "flo,png")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != "flow.json"}
    counted = counting(monkeypatch)
    code, facts, _ = run(clip, "-o", tmp_path / "out", "--format", "flo,png")
    assert (code, facts["pairs"], facts["finished_before"], counted) == (0, 0, 5, [])
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_only_what_is_missing_or_damaged_is_made_and_equals_what_was(tmp_path, run, clip, monkeypatch):
    run(clip, "-o", tmp_path / "out")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.flo")}
    (tmp_path / "out" / "00001.flo").unlink()
    (tmp_path / "out" / "00004.flo").write_bytes(whole["00004.flo"][:1000])
    counted = counting(monkeypatch)
    _, facts, _ = run(clip, "-o", tmp_path / "out")
    assert (facts["pairs"], facts["finished_before"], len(counted)) == (2, 3, 2)
    for name in whole:
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes(whole[name])
        found, expected = (read_flow(tmp_path / folder / name).flow for folder in ("out", "other"))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, net, run, clip):
    def stop(name, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_flow_folder(net, find_flow_sources([clip]), tmp_path / "out", progress=stop)
    assert names(tmp_path / "out") == ["00000.flo", "00001.flo", "00002.flo", "flow.json"]
    _, facts, _ = run(clip, "-o", tmp_path / "out")
    assert (facts["pairs"], facts["finished_before"]) == (2, 3)


def test_another_format_may_be_added_later(tmp_path, run, clip):
    run(clip, "-o", tmp_path / "out")
    code, facts, err = run(clip, "-o", tmp_path / "out", "--format", "flo,png")
    assert (code, facts["pairs"]) == (0, 5), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--every", 2), "every was 1, now 2"),
        (("--size", 48), "size was 'default', now 48"),
        (("--tile", "32x32"), "tile was 'default', now [32, 32]"),
        (("--format", "png", "--arrows"), "look was"),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_kept(tmp_path, run, clip, options, message):
    run(clip, "-o", tmp_path / "out", "--format", "flo,png")
    before = names(tmp_path / "out")
    code, _, err = run(clip, "-o", tmp_path / "out", *options)
    assert code == 1
    assert message in err
    assert "--overwrite" in err
    assert names(tmp_path / "out") == before


def test_a_folder_made_of_another_file_is_refused(tmp_path, run, clip):
    run(clip, "-o", tmp_path / "out")
    write_clip(clip, frames=7)
    code, _, err = run(clip, "-o", tmp_path / "out")
    assert (code, "have changed" in err) == (1, True)


def test_a_folder_that_something_else_made_is_refused_and_overwrite_leaves_no_stale_numbers(tmp_path, run, clip):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    code, _, err = run(clip, "-o", tmp_path / "out")
    assert (code, "holds thesis.tex and no flow.json" in err) == (1, True)
    run(clip, "-o", tmp_path / "out", "--overwrite")
    code, facts, _ = run(clip, "-o", tmp_path / "out", "--overwrite", "--every", 2)
    assert code == 1
    assert "that this run does not replace" in facts["failed"]["clip.mp4"]
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_frames_are_never_written_over(tmp_path, run, options):
    frames = write_frames(tmp_path / "frames", [0, 1])
    before = {path.name: path.read_bytes() for path in frames.iterdir()}
    code, _, err = run(frames, "-o", frames, "--format", "png", *options)
    assert (code, "it is what is read" in err) == (1, True)
    assert {path.name: path.read_bytes() for path in frames.iterdir()} == before


def test_flow_written_below_its_input_is_not_taken_for_frames(tmp_path, run):
    tree = write_frames(tmp_path / "tree" / "frames", [0, 1, 2]).parent
    run(tree, "-o", tree / "flow", "--format", "png")
    assert [source.name for source in find_flow_sources([tree, tmp_path / "tree" / "frames"][:1])] == [""]


def test_a_damaged_record_is_said(tmp_path, run, clip):
    run(clip, "-o", tmp_path / "out")
    (tmp_path / "out" / "flow.json").write_text("{")
    code, _, err = run(clip, "-o", tmp_path / "out")
    assert code == 1
    assert "flow.json is damaged" in err


def test_the_scale_of_pictures_goes_on_after_an_interruption(tmp_path, net, clip, monkeypatch):
    lengths = iter([0.5, 3.0, 3.0, 3.0, 0.2, *[0.2] * 9])
    monkeypatch.setattr("midway_hub.dense.colour_scale.common_length", lambda flow: next(lengths))
    sources = find_flow_sources([clip])
    write_flow_folder(net, sources, tmp_path / "out", formats=["png"])
    assert json.loads((tmp_path / "out" / "colours.json").read_text()) == {"00000": 1.0, "00001": 2.0, "00002": 5.0}
    drawn = []
    draw = FlowLook.picture

    def noting(self, flow, largest, frame):
        drawn.append(largest)
        return draw(self, flow, largest, frame)

    monkeypatch.setattr(FlowLook, "picture", noting)
    (tmp_path / "out" / "00004.png").unlink()
    write_flow_folder(net, sources, tmp_path / "out", formats=["png"])
    assert drawn == [5.0]


# -- what is wrong is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.png\n", "neither two images"),
        ("a.png b.png c.png\n", "there is no file"),
        ("a.png gone.png\n", r"line 1: there is no file .*gone.png"),
        ("a.png a.png a.png\n", "neither two images"),
        ("# nothing\n\n", "is empty"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, lines, message):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_flow_sources([tmp_path / "list.txt"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CLIP", "CLIP2", "-o", "out.mp4"), "name a folder: -o out"),
        (("CLIP", "-o", "out", "--format", "exr"), "flow files are flo, pfm"),
        (("CLIP", "-o", "out", "--format", "png,kitti"), "would write two files called NAME.png"),
        (("CLIP", "-o", "out", "--kitti"), "--format kitti"),
        (("CLIP", "-o", "out", "--size", "big"), "--size must be a number of pixels, or 'own'"),
        (("CLIP", "-o", "out", "--size", "0"), "--size must be a number of pixels, or 'own'"),
        (("EMPTY", "-o", "out"), "holds no videos and no folder of two images or more"),
        (("NOTES", "-o", "out"), "is of type '.csv'"),
        (("gone.mp4", "-o", "out"), "there is no file gone.mp4"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path, monkeypatch, run, clip, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.csv").write_text("")
    shutil.copy(clip, tmp_path / "clip2.mp4")
    known = {
        "CLIP": clip,
        "CLIP2": tmp_path / "clip2.mp4",
        "EMPTY": tmp_path / "empty",
        "NOTES": tmp_path / "notes.csv",
    }
    before = names(tmp_path)
    code, _, err = run(*(known.get(argument, argument) for argument in arguments))
    assert code == 1
    assert message in err
    assert names(tmp_path) == before


def test_a_network_without_the_head_says_so_before_a_folder_is_made(tmp_path, clip):
    with pytest.raises(MissingHeadError, match="this checkpoint has no flow head"):
        write_flow_folder(make_tiny_net(), find_flow_sources([clip]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
