"""What to get to train as the paper does, and whether a folder holds it."""

import shutil

import pytest
from video_clips import write_clip

from midway_hub.training import _video_check
from midway_hub.training.walking_tours import BDD_FILES, TOURS, check_bdd100k, check_walking_tours, instructions


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds, 128x96, 30 frames per second."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_instructions_name_every_tour_its_id_and_the_licence():
    text = instructions()
    assert len(TOURS) == 10
    assert all(f"{tour.name}.mp4" in text and f"watch?v={tour.youtube}" in text for tour in TOURS)
    assert "CC-BY" in text
    assert "downloads nothing" in text


def test_empty_folder_misses_every_tour(tmp_path):
    check = check_walking_tours(tmp_path)
    assert [video.name for video in check.videos] == [tour.name for tour in TOURS]
    assert {video.remarks for video in check.videos} == {("missing",)}
    assert not check.complete


def test_tours_are_found_by_name_in_any_case_and_by_id(tmp_path, clip):
    shutil.copy(clip, tmp_path / "Venice.MP4")
    shutil.copy(clip, tmp_path / "a walk [_NmYvuEILw4].mkv")
    opened = []
    check = check_walking_tours(tmp_path, progress=opened.append)
    found = {video.name: video.path.name for video in check.videos if video.path}
    assert found == {"venice": "Venice.MP4", "zurich": "a walk [_NmYvuEILw4].mkv"}
    assert opened == ["Venice.MP4", "a walk [_NmYvuEILw4].mkv"]


def test_what_a_file_says_of_itself_is_held_against_what_is_known(tmp_path, clip):
    shutil.copy(clip, tmp_path / "venice.mp4")
    (venice,) = [video for video in check_walking_tours(tmp_path).videos if video.path]
    assert (venice.width, venice.height, venice.readable, venice.asked) == (128, 96, 5, 5)
    assert venice.fps == pytest.approx(30)
    assert venice.seconds == pytest.approx(2)
    assert venice.remarks == (
        "lasts 0.0 min, known are 59.0 to 175.0 min",
        "128x96, wanted a short side of at least 720",
    )


def test_video_as_it_should_be_has_no_remarks(clip):
    wanted = _video_check.Wanted(seconds=(1.0, 3.0), short_side=96, fps=30.0)
    assert _video_check.look_at("clip", clip, wanted).remarks == ()
    slower = _video_check.Wanted(seconds=(1.0, 3.0), short_side=96, fps=25.0)
    assert _video_check.look_at("clip", clip, slower).remarks == ("30.00 frames per second, wanted about 25",)


def test_damage_in_the_middle_is_found(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", options={"g": "10"})
    content = bytearray(path.read_bytes())
    start, stop = len(content) // 3, 2 * len(content) // 3
    content[start:stop] = bytes(byte ^ 0x5A for byte in content[start:stop])
    path.write_bytes(content)
    found = _video_check.look_at("clip", path, _video_check.Wanted(seconds=(0, 9), short_side=1))
    assert found.remarks
    assert found.readable < found.asked or "cannot be opened" in found.remarks[0]


def test_file_that_is_no_video_is_named_with_the_reason(tmp_path):
    (tmp_path / "venice.mp4").write_bytes(b"not a video")
    text = str(check_walking_tours(tmp_path))
    assert "cannot be opened" in text
    assert "venice" in text


def test_bdd_folder_is_counted_and_sampled_evenly(tmp_path, clip):
    for number in range(9):
        shutil.copy(clip, tmp_path / f"{number}.mov")
    (tmp_path / "notes.txt").write_text("no video")
    check = check_bdd100k(tmp_path, samples=3)
    assert check.remarks == ("9 .mov files, the train split has 70000",)
    assert [video.name for video in check.videos] == ["0.mov", "4.mov", "8.mov"]
    assert "9 .mov files" in str(check)


def test_bdd_folder_with_the_right_count_has_no_remark_on_it(tmp_path, clip, monkeypatch):
    monkeypatch.setitem(BDD_FILES, "val", 2)
    for number in range(2):
        shutil.copy(clip, tmp_path / f"{number}.mov")
    assert check_bdd100k(tmp_path, split="val", samples=0).remarks == ()


def test_folder_that_is_not_there_is_refused(tmp_path):
    for check in (check_walking_tours, check_bdd100k):
        with pytest.raises(FileNotFoundError, match="nowhere is not a folder; give the one that the videos are in"):
            check(tmp_path / "nowhere")


def test_unknown_split_and_negative_count_are_refused(tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'training'"):
        check_bdd100k(tmp_path, split="training")
    with pytest.raises(ValueError, match="samples must be at least 0, got -1"):
        check_bdd100k(tmp_path, samples=-1)
