"""Classes of folders of images and videos as a file each, made once and gone on with."""

import json

import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from typer.testing import CliRunner
from video_clips import HEIGHT, WIDTH, numbered_frame, write_clip

from midway_hub.cli import app
from midway_hub.dense import label_files, labels_of, write_label_folder, write_video_labels
from midway_hub.extraction import find_sources
from midway_hub.models.network import MissingHeadError
from midway_hub.video import open_video

CLASSES = ("road", "sidewalk", "building", "sky")
PALETTE = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (70, 130, 180))


@pytest.fixture(scope="module")
def net():
    return make_tiny_net(target_network="shared", segmentation_head={"classes": CLASSES, "palette": PALETTE})


@pytest.fixture
def run(net, monkeypatch):
    """Run `midway-hub segment` with the network in memory; returns exit code, facts and errors."""
    monkeypatch.setattr("midway_hub.cli_dense.load_network", lambda name, **options: net)

    def command(*arguments):
        ran = CliRunner().invoke(app, ["segment", *map(str, arguments), "--device", "cpu", "--json"])
        return ran.exit_code, json.loads(ran.stdout) if ran.stdout else None, ran.stderr

    return command


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree" / "day").mkdir(parents=True)
    for name, number in (("b.png", 1), ("a.jpg", 2), ("day/c.png", 3)):
        Image.fromarray(numbered_frame(number)).save(tmp_path / "tree" / name)
    write_clip(tmp_path / "tree" / "day" / "clip.mp4", frames=4, rate=12)
    return tmp_path / "tree"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_tree_of_images_and_videos_is_mirrored(tmp_path, net, run, tree):
    code, facts, err = run(tree, "-o", tmp_path / "out", "--labels", tmp_path / "maps")
    assert (code, facts["files"], facts["finished_before"], facts["failed"]) == (0, 4, 0, {}), err
    assert names(tmp_path / "out") == ["a.png", "b.png", "classes.json", "day/c.png", "day/clip.mp4"]
    maps = ["a.png", "b.png", "day/c.png", *(f"day/clip/{number:06d}.png" for number in range(4))]
    assert names(tmp_path / "maps") == maps
    expected = labels_of(net, numbered_frame(1))
    assert (np.asarray(Image.open(tmp_path / "maps" / "b.png")) == expected).mean() > 0.999


def test_a_second_run_makes_what_is_missing_alone(tmp_path, run, tree):
    run(tree, "-o", tmp_path / "out", "--labels", tmp_path / "maps")
    (tmp_path / "maps" / "a.png").unlink()
    (tmp_path / "out" / "day" / "clip.mp4").unlink()
    code, facts, _ = run(tree, "-o", tmp_path / "out", "--labels", tmp_path / "maps")
    assert (code, facts["files"], facts["finished_before"]) == (0, 2, 2)
    assert (tmp_path / "maps" / "a.png").exists()
    assert (tmp_path / "out" / "day" / "clip.mp4").exists()


def test_new_images_are_added_and_changed_ones_refused(tmp_path, run, tree):
    run(tree, "-o", tmp_path / "out")
    Image.fromarray(numbered_frame(9)).save(tree / "new.png")
    assert run(tree, "-o", tmp_path / "out")[1]["files"] == 1
    Image.fromarray(numbered_frame(8)).save(tree / "new.png", compress_level=1)
    code, _, err = run(tree, "-o", tmp_path / "out")
    assert (code, "the files of new.png have changed" in err) == (1, True)
    assert run(tree, "-o", tmp_path / "out", "--overwrite")[1]["files"] == 5


@pytest.mark.parametrize(
    ("options", "message"), [(("--size", 48), "size was None, now 48"), (("--opacity", 0.2), "look was")]
)
def test_a_folder_of_other_settings_is_refused(tmp_path, run, tree, options, message):
    run(tree, "-o", tmp_path / "out")
    code, _, err = run(tree, "-o", tmp_path / "out", *options)
    assert (code, message in err) == (1, True)


def test_what_fails_is_named_and_the_rest_is_written(tmp_path, run, tree):
    (tree / "broken.png").write_bytes(b"no picture")
    (tree / "broken.mp4").write_bytes(b"no video" * 50)
    code, facts, _ = run(tree, "-o", tmp_path / "out")
    assert (code, facts["files"], sorted(facts["failed"])) == (1, 4, ["broken.mp4", "broken.png"])


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_images_are_never_written_over(tmp_path, run, tree, options):
    before = (tree / "b.png").read_bytes()
    code, _, err = run(tree, "-o", tree, *options)
    assert (code, "it is what is read" in err) == (1, True)
    assert (tree / "b.png").read_bytes() == before


def test_two_images_of_one_name_are_refused(tmp_path, run, tree):
    Image.fromarray(numbered_frame(1)).save(tree / "a.png")
    code, _, err = run(tree, "-o", tmp_path / "out")
    assert (code, "would both be written to a.png" in err) == (1, True)


def test_several_inputs_need_a_folder(tmp_path, run, tree):
    code, _, err = run(tree, "-o", tmp_path / "out.png")
    assert (code, "name a folder: -o out" in err) == (1, True)


def test_a_network_without_the_head_says_so_before_a_folder_is_made(tmp_path, tree):
    with pytest.raises(MissingHeadError, match="this checkpoint has no segmentation head"):
        write_label_folder(make_tiny_net(), find_sources(tree).items, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_frame_of_a_video_is_segmented_twice(tmp_path, net, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", frames=9)
    segmented = []
    segment = labels_of
    monkeypatch.setattr(
        label_files, "labels_of", lambda net, frame, **options: (segmented.append(1), segment(net, frame, **options))[1]
    )
    write_video_labels(net, clip, tmp_path / "out.mp4", labels_out=tmp_path / "maps")
    assert len(segmented) == 9
    for number in (0, 4, 8):
        with open_video(clip) as video, torch.inference_mode():
            expected = labels_of(net, video.get_frames([number])[0])
        assert (np.asarray(Image.open(tmp_path / "maps" / f"{number:06d}.png")) == expected).mean() > 0.999


@pytest.mark.parametrize("name", ["out.webm", "out.gif", "out.mp4"])
def test_the_frame_may_stand_beside_its_classes(tmp_path, run, name):
    clip = write_clip(tmp_path / "clip.mp4", frames=3, rate=12)
    code, facts, err = run(clip, "-o", tmp_path / name, "--side-by-side")
    assert (code, facts["frames"]) == (0, 3), err
    if name.endswith(".gif"):
        assert Image.open(tmp_path / name).size == (2 * WIDTH, HEIGHT)
    else:
        with open_video(tmp_path / name) as video:
            assert (len(video), video.width, video.height) == (3, 2 * WIDTH, HEIGHT)
