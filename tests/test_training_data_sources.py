"""Frame pairs from videos and decoded frames: exactly the frames that were drawn, drawn evenly, or a reason why not."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from midway_hub.training.data.frame_pair import PairSource, SampleError
from midway_hub.training.data.packs import PackError
from midway_hub.training.data.settings import DataSettings, GapSettings
from midway_hub.training.data.sources import build_source, videos
from midway_hub.training.data.sources.choose import choose_pairs
from midway_hub.training.data.sources.frames import FrameSource
from midway_hub.training.data.sources.videos import VideoSource
from PIL import Image
from pydantic import ValidationError
from video_clips import number_of, numbered_frame, write_clip

from midway_hub.video import open_video

FRAMES = GapSettings(frames=(5, 9))


def draw(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A nested folder: two videos of 60 and 40 numbered frames, one of 6."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "day").mkdir()
    write_clip(folder / "a.mov", 60)
    write_clip(folder / "day" / "b.mp4", 40)
    write_clip(folder / "short.mp4", 6)
    (folder / "notes.md").write_text("not a video")
    (folder / "._a.mov").write_text("what other systems leave behind")
    return folder


def write_frames(folder: Path, numbers, *, name="frame_{:06d}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)).save(folder / name.format(number))
    return folder


# Choosing


def test_gaps_and_first_frames_are_uniform():
    pairs = np.array(choose_pairs(np.arange(100), (15, 30), 64_000, draw()))
    gaps, firsts = pairs[:, 1] - pairs[:, 0], pairs[:, 0]
    for values, low, high in ((gaps, 15, 30), (firsts, 0, 69)):
        counts = np.bincount(values, minlength=high + 1)
        assert counts[:low].sum() == 0
        assert len(counts) == high + 1
        kinds = high - low + 1
        expected = len(values) / kinds
        chi_squared = ((counts[low:] - expected) ** 2 / expected).sum()
        assert chi_squared < kinds - 1 + 5 * np.sqrt(2 * (kinds - 1))


def test_gap_does_not_depend_on_the_first_frame():
    pairs = np.array(choose_pairs(np.arange(60), (15, 30), 40_000, draw()))
    correlation = np.corrcoef(pairs[:, 0], pairs[:, 1] - pairs[:, 0])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(len(pairs))


def test_seconds_mean_the_same_as_frames_where_the_rate_is_constant():
    by_frames = choose_pairs(np.arange(90), (15, 30), 1000, draw())
    assert choose_pairs(np.arange(90) / 30, (0.5, 1.0), 1000, draw()) == by_frames


def test_seconds_are_kept_where_the_rate_varies():
    times = np.cumsum(draw().uniform(0.01, 0.2, 300))
    pairs = np.array(choose_pairs(times, (0.5, 0.7), 5000, draw()))
    distance = times[pairs[:, 1]] - times[pairs[:, 0]]
    assert distance.min() >= 0.5 - 1e-6
    assert distance.max() <= 0.7 + 1e-6


def test_frames_further_apart_than_the_gap_give_no_pair():
    assert choose_pairs(np.arange(100) / 1.0, (0.2, 0.5), 5, draw()) is None


@pytest.mark.parametrize(("frames", "fits"), [(30, False), (31, True)])
def test_largest_gap_has_to_fit(frames, fits):
    assert (choose_pairs(np.arange(frames), (15, 30), 5, draw()) is not None) is fits


# Videos


def test_pairs_are_the_frames_they_say_they_are(clips):
    source = VideoSource(clips, FRAMES, pattern="[ab].*")
    assert isinstance(source, PairSource)
    for index in range(len(source)):
        for pair in source.pairs(index, 8, draw(index)):
            assert (number_of(pair.first), number_of(pair.second)) == pair.frames
            assert 5 <= pair.frames[1] - pair.frames[0] <= 9
            assert pair.seconds == pytest.approx((pair.frames[1] - pair.frames[0]) / 30)


@pytest.mark.parametrize("name", ["derived_rot90_udacity.mov", "derived_vfr_cockatoo.mp4", "pancake.mkv"])
def test_pairs_of_real_clips_are_what_the_reader_gives(sample_videos, name):
    source = VideoSource(sample_videos / name, GapSettings(seconds=(0.3, 0.6)))
    pairs = source.pairs(0, 3, draw())
    with open_video(sample_videos / name) as reader:
        for pair in pairs:
            np.testing.assert_array_equal(np.stack([pair.first, pair.second]), reader.get_frames(pair.frames))
            elapsed = reader.timestamps[pair.frames[1]] - reader.timestamps[pair.frames[0]]
            assert pair.seconds == elapsed
            assert 0.3 - 1e-6 <= elapsed <= 0.6 + 1e-6
            assert pair.first.shape == (reader.height, reader.width, 3)


def test_five_pairs_open_the_video_once(clips, monkeypatch):
    opened, asked = [], []

    def counting(path, **options):
        opened.append(path)
        reader = open_video(path, **options)
        get_frames = reader.get_frames
        monkeypatch.setattr(reader, "get_frames", lambda numbers: (asked.append(numbers), get_frames(numbers))[1])
        return reader

    monkeypatch.setattr(videos, "open_video", counting)
    assert len(VideoSource(clips / "a.mov", FRAMES).pairs(0, 5, draw())) == 5
    assert opened == [str(clips / "a.mov")]
    assert len(asked) == 1


def test_choice_of_frames_is_the_generators_alone(clips):
    source = VideoSource(clips / "a.mov", FRAMES)
    again = [pair.frames for pair in source.pairs(0, 5, draw(1))]
    assert [pair.frames for pair in source.pairs(0, 5, draw(1))] == again
    assert [pair.frames for pair in source.pairs(0, 5, draw(2))] != again


def test_a_video_too_short_for_the_gap_is_rejected_with_its_numbers(clips):
    source = VideoSource(clips / "short.mp4", FRAMES)
    with pytest.raises(SampleError, match=r"short.mp4: too short: it has 6 frames \(0.20 s, 30 a second\).*5-9 frames"):
        source.pairs(0, 5, draw())


def test_a_truncated_video_is_rejected_for_good(sample_videos):
    source = VideoSource(sample_videos / "derived_truncated_nomoov_pancake.mov", FRAMES)
    with pytest.raises(SampleError, match="the file is cut off") as caught:
        source.pairs(0, 5, draw())
    assert caught.value.always
    assert caught.value.reason.count("derived_truncated") == 0


def test_a_damaged_frame_is_rejected_for_this_draw_and_never_replaced(sample_videos):
    source = VideoSource(sample_videos / "corrupted_720p.mp4", FRAMES)
    failed = []
    for seed in range(6):
        try:
            source.pairs(0, 5, draw(seed))
        except SampleError as error:
            failed.append(error)
    assert failed
    assert not any(error.always for error in failed)
    assert all("cannot be decoded" in error.reason for error in failed)


def test_a_video_that_has_gone_is_rejected(clips, tmp_path):
    shutil.copy(clips / "a.mov", tmp_path / "a.mov")
    source = VideoSource(tmp_path, FRAMES)
    (tmp_path / "a.mov").unlink()
    with pytest.raises(SampleError, match="there is no video file"):
        source.pairs(0, 5, draw())


def test_rejection_survives_pickling():
    error = pickle.loads(pickle.dumps(SampleError("a.mp4", "too short", always=True)))
    assert (error.file, error.reason, error.always, str(error)) == ("a.mp4", "too short", True, "a.mp4: too short")


def test_folder_list_and_single_video_name_the_same_file(clips, tmp_path):
    listing = tmp_path / "videos.txt"
    listing.write_text(f"# two\n{clips / 'a.mov'}\n\n{clips / 'day' / 'b.mp4'}\n")
    assert [name for name, _ in VideoSource(clips, FRAMES).files] == ["a.mov", "day/b.mp4", "short.mp4"]
    assert [Path(path).name for _, path in VideoSource(listing, FRAMES).files] == ["a.mov", "b.mp4"]
    assert [name for name, _ in VideoSource(clips / "a.mov", FRAMES).files] == ["a.mov"]


@pytest.mark.parametrize(("pattern", "names"), [("*.mov", ["a.mov"]), ("day/*", ["day/b.mp4"])])
def test_pattern_chooses_videos(clips, pattern, names):
    assert [name for name, _ in VideoSource(clips, FRAMES, pattern=pattern).files] == names


def test_places_without_videos_are_refused_with_what_is_there(clips, tmp_path):
    (tmp_path / "empty").mkdir()
    write_frames(tmp_path / "frames", range(2))
    with pytest.raises(FileNotFoundError, match=r"data.path: there is no .*nowhere"):
        VideoSource(tmp_path / "nowhere", FRAMES)
    with pytest.raises(ValueError, match="empty is empty"):
        VideoSource(tmp_path / "empty", FRAMES)
    with pytest.raises(ValueError, match=r"holds no videos .*; it holds 2 \.png; data.source=frames reads decoded"):
        VideoSource(tmp_path / "frames", FRAMES)
    with pytest.raises(ValueError, match=r"no video of .* matches data.pattern='\*.avi'; there are 2 \.mp4, 1 \.mov"):
        VideoSource(clips, FRAMES, pattern="*.avi")


def test_folders_that_link_to_each_other_are_searched_once(tmp_path):
    write_frames(tmp_path / "a", range(2))
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert len(FrameSource(tmp_path, GapSettings(frames=(1, 1)))) == 1


def test_a_list_with_a_missing_video_is_refused_with_its_line(tmp_path):
    (tmp_path / "videos.txt").write_text("gone.mp4\n")
    with pytest.raises(FileNotFoundError, match=r"videos.txt, line 1: there is no file .*gone.mp4"):
        VideoSource(tmp_path / "videos.txt", FRAMES)


def test_a_reader_that_is_not_installed_is_refused_before_training(clips, monkeypatch):
    monkeypatch.setattr(videos, "available_readers", lambda: {"torchcodec": "not installed (pip install torchcodec)"})
    with pytest.raises(ValueError, match=r"data.reader=torchcodec cannot be used: not installed"):
        VideoSource(clips, FRAMES, reader="torchcodec")


def test_fingerprint_knows_names_and_sizes_and_not_the_place(clips, tmp_path):
    before = VideoSource(clips, FRAMES).fingerprint()
    copy = tmp_path / "copy"
    shutil.copytree(clips, copy)
    assert VideoSource(copy, FRAMES).fingerprint() == before == json.loads(json.dumps(before))
    with (copy / "a.mov").open("ab") as file:
        file.write(b"\0")
    longer = VideoSource(copy, FRAMES).fingerprint()
    (copy / "short.mp4").rename(copy / "brief.mp4")
    assert len({before["hash"], longer["hash"], VideoSource(copy, FRAMES).fingerprint()["hash"]}) == 3


# Decoded frames


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> Path:
    """Two folders of numbered frames: 0 to 19, and 100 to 111."""
    folder = tmp_path_factory.mktemp("decoded")
    write_frames(folder / "a", range(20))
    write_frames(folder / "b", range(100, 112))
    return folder


def test_pairs_of_decoded_frames_are_the_files_they_say_they_are(decoded):
    source = FrameSource(decoded, FRAMES, frame_rate=25)
    assert len(source) == 2
    for index, offset in ((0, 0), (1, 100)):
        for pair in source.pairs(index, 6, draw()):
            first, second = pair.frames
            assert (number_of(pair.first), number_of(pair.second)) == (offset + first, offset + second)
            assert 5 <= second - first <= 9
            assert pair.seconds == (second - first) / 25


def test_every_frame_is_the_first_of_a_pair_once_per_pass(decoded):
    source = FrameSource(decoded, GapSettings(frames=(5, 5)), every_pair=True)
    pairs = [source.pairs(index, 1, draw())[0] for index in range(len(source))]
    numbers = [(number_of(pair.first), number_of(pair.second)) for pair in pairs]
    assert numbers == [(first, first + 5) for first in [*range(15), *range(100, 107)]]
    assert [pair.frames for pair in pairs[-2:]] == [(5, 10), (6, 11)]


def test_every_first_frame_draws_its_gap_from_the_whole_range(decoded):
    source = FrameSource(decoded, FRAMES, every_pair=True)
    assert len(source) == 11 + 3
    gaps = {first: set() for first in (0, 10, 100, 102)}
    for index, first in ((0, 0), (10, 10), (11, 100), (13, 102)):
        for seed in range(60):
            pair = source.pairs(index, 1, draw(seed))[0]
            assert number_of(pair.first) == first
            gaps[first].add(number_of(pair.second) - first)
    assert all(seen == {5, 6, 7, 8, 9} for seen in gaps.values())


def test_seconds_of_decoded_frames_go_by_the_frame_rate(decoded):
    source = FrameSource(decoded, GapSettings(seconds=(0.5, 0.5)), frame_rate=10, every_pair=True)
    assert len(source) == 15 + 7
    assert source.pairs(3, 1, draw())[0].frames == (3, 8)


def test_a_frame_number_beyond_the_padding_keeps_its_place(tmp_path):
    write_frames(tmp_path, range(8, 13), name="frame_{:01d}.png")
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    assert [number_of(source.pairs(index, 1, draw())[0].first) for index in range(4)] == [8, 9, 10, 11]


def test_missing_frames_are_noticed_before_training(tmp_path):
    write_frames(tmp_path, [0, 1, 2, 4, 5])
    with pytest.raises(ValueError, match=r"frames are missing .* frame_000002.png is followed by frame_000004.png"):
        FrameSource(tmp_path, FRAMES)


def test_two_series_of_frames_in_one_folder_are_noticed(tmp_path):
    write_frames(tmp_path, range(3), name="a_{}.png")
    write_frames(tmp_path, range(3), name="b_{}.png")
    with pytest.raises(ValueError, match=r"doubled .* a_0.png is followed by b_0.png"):
        FrameSource(tmp_path, FRAMES)
    assert len(FrameSource(tmp_path, GapSettings(frames=(1, 1)), pattern="a_*", every_pair=True)) == 2


def test_a_damaged_image_is_rejected_by_its_name(tmp_path):
    write_frames(tmp_path / "a", range(10))
    (tmp_path / "a" / "frame_000004.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    source = FrameSource(tmp_path, GapSettings(frames=(4, 4)), every_pair=True)
    assert source.pairs(1, 1, draw())
    for index in (0, 4):
        with pytest.raises(SampleError, match=r"a/frame_000004.png: cannot be read as an image"):
            source.pairs(index, 1, draw())


def test_frames_that_change_size_are_rejected(tmp_path):
    write_frames(tmp_path / "a", range(2))
    Image.new("RGB", (20, 10)).save(tmp_path / "a" / "frame_000002.png")
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    with pytest.raises(SampleError, match="differ in size: 128x96 and 20x10"):
        source.pairs(1, 1, draw())


def test_a_folder_too_short_for_the_gap_is_rejected(decoded):
    source = FrameSource(decoded, GapSettings(frames=(5, 12)))
    assert source.pairs(0, 1, draw())
    with pytest.raises(SampleError, match="b: too short: it has 12 frames"):
        source.pairs(1, 1, draw())


def test_places_without_frames_are_refused_with_what_is_there(clips, decoded, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        FrameSource(tmp_path / "nowhere", FRAMES)
    with pytest.raises(ValueError, match=r"data.path wants a folder with images"):
        FrameSource(tmp_path, FRAMES)
    with pytest.raises(ValueError, match=r"it holds 2 \.mp4, 1 \.md, 1 \.mov; data.source=videos reads videos"):
        FrameSource(clips, FRAMES)
    with pytest.raises(ValueError, match=r"a.mov is a file; data.source=frames wants a folder"):
        FrameSource(clips / "a.mov", FRAMES)
    with pytest.raises(ValueError, match=r"no image of .* matches data.pattern='img_\*'; it holds 32 \.png"):
        FrameSource(decoded, FRAMES, pattern="img_*")
    with pytest.raises(ValueError, match=r"no folder of .* is long enough .* the longest has 20 frames"):
        FrameSource(decoded, GapSettings(frames=(20, 20)), every_pair=True)


def test_fingerprint_of_frames_notices_a_missing_one(tmp_path):
    write_frames(tmp_path, range(6))
    before = FrameSource(tmp_path, FRAMES).fingerprint()
    (tmp_path / "frame_000005.png").unlink()
    after = FrameSource(tmp_path, FRAMES).fingerprint()
    assert (before["files"], after["files"]) == (6, 5)
    assert before["hash"] != after["hash"]


# Settings


def test_settings_choose_the_source(clips, decoded):
    assert isinstance(build_source(DataSettings(source="videos", path=clips)), VideoSource)
    chosen = build_source(
        DataSettings(source="frames", path=decoded, every_pair=True, pairs_per_visit=1, gap={"frames": [5, 5]})
    )
    assert len(chosen) == 15 + 7


def test_a_folder_that_is_no_pack_is_refused(clips):
    with pytest.raises(PackError, match="is no pack"):
        build_source(DataSettings(source="pack", path=clips))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gap": {"frames": [15, 30], "seconds": [0.5, 1]}}, "exactly one of gap.frames and gap.seconds"),
        ({"gap": {}}, "exactly one of gap.frames and gap.seconds"),
        ({"gap": {"frames": [30, 15]}}, r"0 < least <= most, got \[30, 15\] frames"),
        ({"gap": {"frames": [0, 3]}}, r"got \[0, 3\] frames"),
        ({"gap": {"seconds": [0.5, float("inf")]}}, r"got \[0.5, inf\] seconds"),
        ({"gap": {"frames": [1.5, 3]}}, "integer"),
        ({"source": "videos"}, "data.source=videos needs data.path"),
        ({"path": "somewhere"}, "data.path is somewhere, but data.source=synthetic reads no files"),
        ({"source": "videos", "path": "x", "every_pair": True}, "needs data.source=frames, got videos"),
        ({"source": "frames", "path": "x", "every_pair": True}, "got data.pairs_per_visit=5; make it 1"),
        ({"pattern": ""}, "would match no file"),
        ({"source": "video"}, "'synthetic', 'videos', 'frames' or 'pack'"),
        ({"workers": -1}, "greater than or equal to 0"),
        ({"max_rejected": 5}, "less than or equal to 1"),
        ({"worker": 2}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        DataSettings(**settings)


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        ({"frames": (15, 30)}, "15-30 frames"),
        ({"seconds": (0.5, 1)}, "0.5-1 seconds"),
        ({"frames": (8, 8)}, "8 frames"),
    ],
)
def test_a_gap_reads_as_it_is_meant(gap, text):
    assert str(GapSettings(**gap)) == text
