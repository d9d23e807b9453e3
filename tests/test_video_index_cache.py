"""Lists of frames that are kept in a folder: taken where they hold, made anew where anything has changed."""

import dataclasses
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from video_clips import numbers_of, write_clip

from midway_hub.training import pretraining
from midway_hub.training.config import load_config
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.videos import VideoSource
from midway_hub.video import READERS, VideoError, available_readers, index_cache, open_video
from midway_hub.video.container import index_video
from midway_hub.video.index_cache import cached_index

X264 = {"g": "12", "bf": "3", "x264-params": "scenecut=0:threads=1"}


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 30, options=X264)


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def walks(monkeypatch):
    """The videos that were walked through."""
    walked = []

    def counting(path, stream=None):
        walked.append(path.name)
        return index_video(path, stream)

    monkeypatch.setattr(index_cache, "index_video", counting)
    return walked


def assert_same(one, other):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "packets" and a is not None:
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert type(a) is type(b), field.name
            assert a == b, field.name


def only_list(folder):
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


# -- what is kept is what was found --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("B-frames.mp4", {}),
        ("B-frames.mkv", {}),
        ("packets that are no guide.avi", {}),
        ("uneven.mp4", {"times": np.cumsum([1 + (i % 5 == 0) * 3 for i in range(30)]).tolist()}),
        ("open GOP.mkv", {"options": X264 | {"x264-params": "scenecut=0:threads=1:open-gop=1"}}),
    ],
)
def test_a_kept_list_says_all_that_the_walk_says(tmp_path, kept, walks, name, options):
    path = write_clip(tmp_path / name, 30, **{"options": X264, **options})
    first, second = cached_index(path, None, kept), cached_index(path, None, kept)
    assert walks == [name]
    assert_same(first, index_video(path))
    assert_same(second, first)


@pytest.mark.parametrize(
    "name", ["derived_truncated_faststart_udacity.mp4", "derived_rot90_udacity.mov", "pancake.mkv", "unordered_pts.mov"]
)
def test_a_kept_list_of_a_real_file_says_all_that_the_walk_says(sample_videos, kept, walks, name):
    if not (sample_videos / name).exists():
        pytest.skip(f"there is no {name}")
    first, second = cached_index(sample_videos / name, None, kept), cached_index(sample_videos / name, None, kept)
    assert walks == [name]
    assert_same(second, first)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_the_same_frames_by_a_kept_list(clip, kept, walks, name):
    if not (state := available_readers()[name])[0].isdigit():
        pytest.skip(f"{name}: {state}")
    for _ in range(2):
        with open_video(clip, reader=name, num_threads=1, index_cache=kept) as reader:
            assert numbers_of(reader.get_frames([29, 3, 17, 0])) == [29, 3, 17, 0]
            np.testing.assert_allclose(reader.timestamps, np.arange(30) / 30, atol=1e-9)
    assert walks == ["clip.mp4"]


def test_the_list_of_a_video_that_was_cut_off_still_says_so_at_every_opening(sample_videos, kept, caplog):
    for _ in range(2):
        caplog.clear()
        with open_video(sample_videos / "derived_truncated_faststart_udacity.mp4", index_cache=kept) as reader:
            assert "only the first 13 frames can be read" in caplog.text
            with pytest.raises(VideoError, match="only the first 13 frames can"):
                reader.get_frames([13])


def test_without_a_folder_nothing_is_kept(clip, walks, tmp_path):
    with open_video(clip), open_video(clip):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_list_is_small_beside_its_video(clip, kept):
    cached_index(clip, None, kept)
    assert only_list(kept).stat().st_size < 3000


# -- a changed file is seen ----------------------------------------------------------------------------------------


def replace_by_longer(clip):
    write_clip(clip, 40, options=X264)


def replace_by_equal_size_and_time(clip):
    """Another video of as many bytes, which claims to have been changed when the first was."""
    before = clip.stat()
    other = write_clip(clip.with_name("other.mp4"), 25, options=X264)
    data = other.read_bytes()
    assert len(data) <= before.st_size
    box = before.st_size - len(data)
    assert box >= 8
    clip.write_bytes(data + box.to_bytes(4, "big") + b"free" + bytes(box - 8))
    other.unlink()
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (clip.stat().st_size, clip.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def append(clip):
    with clip.open("ab") as file:
        file.write((64).to_bytes(4, "big") + b"free" + bytes(56))


def touch(clip):
    os.utime(clip, ns=(clip.stat().st_atime_ns, clip.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [replace_by_longer, replace_by_equal_size_and_time, append, touch])
def test_a_changed_file_is_walked_through_anew(clip, kept, walks, change):
    cached_index(clip, None, kept)
    change(clip)
    again = cached_index(clip, None, kept)
    assert len(walks) == 2
    assert_same(again, index_video(clip))
    cached_index(clip, None, kept)
    assert len(walks) == 2


def test_a_file_that_was_cut_off_since_its_list_was_made_is_an_error(clip, kept):
    cached_index(clip, None, kept)
    os.truncate(clip, clip.stat().st_size - 500)
    with pytest.raises(VideoError, match="the file is cut off, 500 bytes of it are missing"):
        open_video(clip, index_cache=kept)


def test_a_file_that_changes_while_it_is_walked_through_is_not_kept(clip, kept, monkeypatch):
    def slow(path, stream):
        index = index_video(path, stream)
        touch(path)
        return index

    monkeypatch.setattr(index_cache, "index_video", slow)
    cached_index(clip, None, kept)
    assert not kept.exists()


def test_another_version_of_the_format_or_of_the_demuxer_makes_lists_anew(clip, kept, walks, monkeypatch):
    cached_index(clip, None, kept)
    with monkeypatch.context() as other:
        other.setattr(index_cache, "FORMAT", index_cache.FORMAT + 1)
        cached_index(clip, None, kept)
        assert len(walks) == 2
    cached_index(clip, None, kept)
    assert len(walks) == 3
    monkeypatch.setattr(index_cache.metadata, "version", lambda package: "0.0")
    cached_index(clip, None, kept)
    assert len(walks) == 4


def test_each_stream_and_each_path_has_a_list_of_its_own(clip, kept, walks, tmp_path):
    shutil.copy2(clip, tmp_path / "copy.mp4")
    for path, stream in [(clip, None), (clip, 0), (tmp_path / "copy.mp4", None)] * 2:
        assert cached_index(path, stream, kept).path == path
    assert walks == ["clip.mp4", "clip.mp4", "copy.mp4"]


def test_a_relative_path_finds_the_list_of_the_absolute_one(clip, kept, walks, monkeypatch):
    cached_index(clip, None, kept)
    monkeypatch.chdir(clip.parent)
    with open_video("clip.mp4", index_cache="kept") as reader:
        assert str(reader.path) == "clip.mp4"
    assert len(walks) == 1


# -- damage, and many at once --------------------------------------------------------------------------------------


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: flip(data, 5),
        lambda data: flip(data, 40),
        lambda data: flip(data, len(data) // 2),
        lambda data: flip(data, len(data) - 3),
        lambda data: data + b"more",
        lambda data: b"\x80\x04K\x01." * 50,
    ],
)
def test_a_damaged_list_is_made_anew(clip, kept, walks, damage):
    expected = cached_index(clip, None, kept)
    place = only_list(kept)
    whole = place.read_bytes()
    place.write_bytes(damage(whole))
    assert_same(cached_index(clip, None, kept), expected)
    assert len(walks) == 2
    assert place.read_bytes() == whole
    cached_index(clip, None, kept)
    assert len(walks) == 2


def test_where_lists_cannot_be_kept_videos_open_as_ever_and_it_is_said_once(clip, kept, caplog):
    kept.write_text("a file, no folder")
    index_cache._say_once.cache_clear()
    for _ in range(3):
        with open_video(clip, index_cache=kept) as reader:
            assert numbers_of(reader.get_frames([7])) == [7]
    assert caplog.text.count("lists of frames cannot be kept in") == 1


def test_failures_are_not_kept(tmp_path, kept):
    with pytest.raises(FileNotFoundError, match="there is no video file"):
        open_video(tmp_path / "gone.mp4", index_cache=kept)
    (tmp_path / "no video.mp4").write_bytes(b"no video" * 100)
    for _ in range(2):
        with pytest.raises(VideoError, match="cannot be opened as a video"):
            open_video(tmp_path / "no video.mp4", index_cache=kept)
    assert not kept.exists()


def test_a_video_that_is_gone_is_not_found_by_its_list(clip, kept):
    cached_index(clip, None, kept)
    clip.unlink()
    with pytest.raises(FileNotFoundError, match="there is no video file"):
        open_video(clip, index_cache=kept)


def test_threads_may_share_a_folder(clip, kept):
    found = []
    threads = [threading.Thread(target=lambda: found.append(cached_index(clip, None, kept))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for index in found:
        assert_same(index, found[0])
    assert only_list(kept).name[0] != "."


def test_processes_may_share_a_folder(clip, kept):
    program = (
        "import sys\nfrom midway_hub.video import open_video\n"
        "for _ in range(20):\n"
        "    with open_video(sys.argv[1], num_threads=1, index_cache=sys.argv[2]) as reader:\n"
        "        assert len(reader) == 30\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, clip, kept]) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert_same(cached_index(clip, None, kept), index_video(clip))
    assert only_list(kept)


# -- training ------------------------------------------------------------------------------------------------------


def test_a_source_of_videos_walks_through_each_once_and_draws_the_same_pairs(tmp_path, kept, walks):
    for name in ("a.mp4", "b.mkv"):
        write_clip(tmp_path / name, 30, options=X264)
    plain = VideoSource(tmp_path, GapSettings(frames=(5, 9)))
    source = VideoSource(tmp_path, GapSettings(frames=(5, 9)), index_cache=kept)
    for visit in range(3):
        for index in range(2):
            expected = plain.clips(index, 2, np.random.default_rng(visit))
            for pair, same in zip(source.clips(index, 2, np.random.default_rng(visit)), expected, strict=True):
                assert pair.frames == same.frames
                assert np.array_equal(pair.first, same.first)
                assert np.array_equal(pair.second, same.second)
    assert walks == ["a.mp4", "b.mkv"]


def test_a_worker_process_finds_what_another_kept(clip, kept):
    source = VideoSource(clip, GapSettings(frames=(5, 9)), index_cache=kept)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (pair,) = pool.apply(source.clips, (0, 1, np.random.default_rng(0)))
    assert numbers_of([pair.first, pair.second]) == list(pair.frames)
    assert only_list(kept)


def test_the_processes_and_restarts_of_a_run_share_the_lists_in_its_directory(tmp_path, clip, walks, monkeypatch):
    def one_step(method, batches, *run, **options):
        next(iter(batches.iterate(0, 1)))
        raise InterruptedError

    monkeypatch.setattr(pretraining, "train", one_step)
    options = ("data.source=videos", f"data.path={clip}", "data.gap.frames=[2,5]", "data.workers=0")
    config = load_config("smoke", options)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            pretraining.pretrain(config, tmp_path / "run")
    assert walks == ["clip.mp4"]
    assert only_list(tmp_path / "run" / "video_index")
