"""Frame pairs from videos and decoded frames: exactly the frames that were drawn, drawn evenly, or a reason why not."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from video_clips import number_of, numbered_frame, write_clip

from midway_hub.training.data.clip import ClipSource, SampleError
from midway_hub.training.data.packs import PackError
from midway_hub.training.data.settings import DataSettings, GapSettings
from midway_hub.training.data.sources import build_source, videos
from midway_hub.training.data.sources.choose import choose_pairs
from midway_hub.training.data.sources.frames import FrameSource
from midway_hub.training.data.sources.videos import VideoSource
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
    assert isinstance(source, ClipSource)
    for index in range(len(source)):
        for pair in source.clips(index, 8, draw(index)):
            assert (number_of(pair.first), number_of(pair.second)) == pair.frames
            assert 5 <= pair.frames[1] - pair.frames[0] <= 9
            assert pair.seconds == pytest.approx((pair.frames[1] - pair.frames[0]) / 30)


@pytest.mark.parametrize("name", ["derived_rot90_udacity.mov", "derived_vfr_cockatoo.mp4", "pancake.mkv"])
def test_pairs_of_real_clips_are_what_the_reader_gives(sample_videos, name):
    source = VideoSource(sample_videos / name, GapSettings(seconds=(0.3, 0.6)))
    pairs = source.clips(0, 3, draw())
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
    assert len(VideoSource(clips / "a.mov", FRAMES).clips(0, 5, draw())) == 5
    assert opened == [str(clips / "a.mov")]
    assert len(asked) == 1


def test_choice_of_frames_is_the_generators_alone(clips):
    source = VideoSource(clips / "a.mov", FRAMES)
    again = [pair.frames for pair in source.clips(0, 5, draw(1))]
    assert [pair.frames for pair in source.clips(0, 5, draw(1))] == again
    assert [pair.frames for pair in source.clips(0, 5, draw(2))] != again


def test_a_video_too_short_for_the_gap_is_rejected_with_its_numbers(clips):
    source = VideoSource(clips / "short.mp4", FRAMES)
    with pytest.raises(SampleError, match=r"short.mp4: too short: it has 6 frames \(0.20 s, 30 a second\).*5-9 frames"):
        source.clips(0, 5, draw())


def test_a_truncated_video_is_rejected_for_good(sample_videos):
    source = VideoSource(sample_videos / "derived_truncated_nomoov_pancake.mov", FRAMES)
    with pytest.raises(SampleError, match="the file is cut off") as caught:
        source.clips(0, 5, draw())
    assert caught.value.always
    assert caught.value.reason.count("derived_truncated") == 0


def test_a_damaged_frame_is_rejected_for_this_draw_and_never_replaced(sample_videos):
    source = VideoSource(sample_videos / "corrupted_720p.mp4", FRAMES)
    failed = []
    for seed in range(6):
        try:
            source.clips(0, 5, draw(seed))
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
        source.clips(0, 5, draw())


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


def test_lists_are_read_as_those_of_features_are(clips, tmp_path):
    names = ["#20 clap.mp4", "b.mov", "plain.mp4"]
    for name in names:
        shutil.copy(clips / "short.mp4", tmp_path / name)
    (tmp_path / "videos.txt").write_bytes("\ufeff#20 clap.mp4\r\n# no file\r\n 'b.mov'\r\nplain.mp4".encode())
    assert [name for name, _ in VideoSource(tmp_path / "videos.txt", FRAMES).files] == names


def test_what_is_left_out_of_folders_and_lists_is_said(clips, tmp_path, caplog):
    VideoSource(clips, FRAMES)
    assert "left out 1 files (1 .md)" in caplog.text
    (tmp_path / "videos.txt").write_text(f"# first\n# second\n{clips / 'a.mov'}\n")
    VideoSource(tmp_path / "videos.txt", FRAMES)
    assert "videos.txt: passed over 2 lines of lists as comments" in caplog.text


def test_videos_of_a_folder_keep_the_order_that_earlier_runs_were_begun_with(clips, tmp_path):
    for name in ("10.mp4", "9.mp4", "B.mp4", "a.mp4", "sub/1.mp4", "sub-1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(clips / "short.mp4", tmp_path / name)
    found = [name for name, _ in VideoSource(tmp_path, FRAMES).files]
    assert found == ["10.mp4", "9.mp4", "B.mp4", "a.mp4", "sub/1.mp4", "sub-1.mp4"]


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
        for pair in source.clips(index, 6, draw()):
            first, second = pair.frames
            assert (number_of(pair.first), number_of(pair.second)) == (offset + first, offset + second)
            assert 5 <= second - first <= 9
            assert pair.seconds == (second - first) / 25


def test_every_frame_is_the_first_of_a_pair_once_per_pass(decoded):
    source = FrameSource(decoded, GapSettings(frames=(5, 5)), every_pair=True)
    pairs = [source.clips(index, 1, draw())[0] for index in range(len(source))]
    numbers = [(number_of(pair.first), number_of(pair.second)) for pair in pairs]
    assert numbers == [(first, first + 5) for first in [*range(15), *range(100, 107)]]
    assert [pair.frames for pair in pairs[-2:]] == [(5, 10), (6, 11)]


def test_every_first_frame_draws_its_gap_from_the_whole_range(decoded):
    source = FrameSource(decoded, FRAMES, every_pair=True)
    assert len(source) == 11 + 3
    gaps = {first: set() for first in (0, 10, 100, 102)}
    for index, first in ((0, 0), (10, 10), (11, 100), (13, 102)):
        for seed in range(60):
            pair = source.clips(index, 1, draw(seed))[0]
            assert number_of(pair.first) == first
            gaps[first].add(number_of(pair.second) - first)
    assert all(seen == {5, 6, 7, 8, 9} for seen in gaps.values())


def test_seconds_of_decoded_frames_go_by_the_frame_rate(decoded):
    source = FrameSource(decoded, GapSettings(seconds=(0.5, 0.5)), frame_rate=10, every_pair=True)
    assert len(source) == 15 + 7
    assert source.clips(3, 1, draw())[0].frames == (3, 8)


def test_a_frame_number_beyond_the_padding_keeps_its_place(tmp_path):
    write_frames(tmp_path, range(8, 13), name="frame_{:01d}.png")
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    assert [number_of(source.clips(index, 1, draw())[0].first) for index in range(4)] == [8, 9, 10, 11]


def all_pairs(source, seeds=40):
    """Every pair that a source of single first frames gives, by the numbers in the pictures."""
    drawn = (source.clips(index, 1, draw(seed))[0] for index in range(len(source)) for seed in range(seeds))
    return {(number_of(pair.first), number_of(pair.second)) for pair in drawn}


@pytest.mark.parametrize(
    ("numbers", "gap", "missing", "pairs"),
    [
        ([0, 1, 2, 4, 5], (1, 1), 1, {(0, 1), (1, 2), (4, 5)}),
        ([0, 1, 2, 4, 5], (1, 2), 1, {(0, 1), (0, 2), (1, 2), (2, 4)}),
        ([7, 8, 20, 21, 22], (1, 1), 11, {(7, 8), (20, 21), (21, 22)}),
        ([0, 5, 10, 20, 25], (1, 1), 1, {(0, 5), (5, 10), (20, 25)}),
    ],
)
def test_frames_around_a_missing_one_are_not_consecutive(tmp_path, caplog, numbers, gap, missing, pairs):
    write_frames(tmp_path, numbers)
    source = FrameSource(tmp_path, GapSettings(frames=gap), every_pair=True)
    assert all_pairs(source) == pairs
    assert f"{missing} frames are missing: frame_" in caplog.text
    assert source.fingerprint()["missing_frames"] == missing
    whole = FrameSource(tmp_path, GapSettings(frames=gap))
    drawn = whole.clips(0, 200, draw())
    assert {(number_of(pair.first), number_of(pair.second)) for pair in drawn} == pairs
    step = numbers[1] - numbers[0]
    assert all(
        pair.seconds * 30 == pytest.approx((number_of(pair.second) - number_of(pair.first)) / step) for pair in drawn
    )


def test_a_numbering_without_holes_is_nothing_to_speak_of(tmp_path, caplog):
    write_frames(tmp_path, range(0, 30, 3))
    assert not {"missing_frames", "videos_of_uneven_numbers"} & FrameSource(tmp_path, FRAMES).fingerprint().keys()
    assert not caplog.records


@pytest.mark.parametrize(
    "form", ["{}.png", "frame_{}.png", "frame ({}).png", "{}_left.png", "v1.{}.png", "{}.0s.png", "shot2_{}.png"]
)
def test_frames_whose_numbers_are_not_padded_are_in_order(tmp_path, form):
    write_frames(tmp_path, range(12), name=form)
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    assert all_pairs(source, seeds=1) == {(number, number + 1) for number in range(11)}


@pytest.mark.parametrize("forms", [("a_{}.png", "b_{}.png"), ("cam0_{}.png", "cam1_{}.png"), ("{}_l.png", "{}_r.png")])
def test_two_cameras_in_one_folder_are_two_videos(tmp_path, caplog, forms):
    caplog.set_level("INFO", logger="midway_hub")
    for form, first in zip(forms, (0, 100), strict=True):
        folder = write_frames(tmp_path / "aside", range(first, first + 4), name="{}.png")
        for number in range(4):
            (folder / f"{first + number}.png").rename(tmp_path / form.format(number))
    (tmp_path / "aside").rmdir()
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    assert all_pairs(source, seeds=1) == {(first + n, first + n + 1) for first in (0, 100) for n in range(3)}
    assert source.clips(0, 1, draw())[0].name == f"./{forms[0].format('*')}"
    assert f"holds 2 videos: {forms[0].format('*')} (4), {forms[1].format('*')} (4)" in caplog.text
    only = FrameSource(tmp_path, GapSettings(frames=(1, 1)), pattern=forms[0].format("*"), every_pair=True)
    assert all_pairs(only, seeds=1) == {(0, 1), (1, 2), (2, 3)}


def test_files_named_unlike_the_frames_are_left_out_and_named(tmp_path, caplog):
    write_frames(tmp_path, range(4), name="{}.png")
    write_frames(tmp_path, [50], name="cover.png")
    assert FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True).folders[0][1] == [
        f"{number}.png" for number in range(4)
    ]
    assert "1 files are named unlike the frames and left out: cover.png" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0a1b.png", "9f8e7.png", "ab12cd.png", "ffee.png"], "their names give no order"),
        (["1.png", "1.bmp", "2.png", "2.bmp"], "frames are doubled: 1.bmp and 1.png"),
        (["f_1.png", "f_01.png", "f_2.png"], "frames are doubled: f_01.png and f_1.png"),
    ],
)
def test_frames_without_an_order_are_refused_with_their_folder(tmp_path, names, message):
    for number, name in enumerate(names):
        write_frames(tmp_path / "day", [number], name=name)
    with pytest.raises(ValueError, match=rf"folder .*day: {message}.*choose files with data.pattern"):
        FrameSource(tmp_path, FRAMES)


START = 1403636579763555584
STAMPED = {  # unit, names of frames at 0, 50, 103, 150, 900 and 950 milliseconds
    "ns": [f"{START + ms * 10**6}.png" for ms in (0, 50, 103, 150, 900, 950)],
    "us": [f"n015-2018-07-24__CAM__{START // 1000 + ms * 1000}.png" for ms in (0, 50, 103, 150, 900, 950)],
    "ms": [f"ring_front_{ms + 7}.png" for ms in (0, 50, 103, 150, 900, 950)],
}


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_timestamps_are_taken_in_order_and_no_pair_spans_a_cut(tmp_path, caplog, unit):
    caplog.set_level("INFO", logger="midway_hub")
    for number, name in enumerate(STAMPED[unit]):
        write_frames(tmp_path, [number], name=name)
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    assert all_pairs(source) == {(0, 1), (1, 2), (2, 3), (4, 5)}
    assert "1 of them taken for cuts, and are taken in order; data.frame_times=" in caplog.text
    assert source.fingerprint()["videos_of_uneven_numbers"] == 1


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_timestamps_can_be_times(tmp_path, unit):
    for number, name in enumerate(STAMPED[unit]):
        write_frames(tmp_path, [number], name=name)
    source = FrameSource(tmp_path, GapSettings(seconds=(0.045, 0.05)), frame_times=unit, every_pair=True)
    assert all_pairs(source) == {(0, 1), (2, 3), (4, 5)}
    assert source.clips(0, 1, draw())[0].seconds == pytest.approx(0.05)
    far = FrameSource(tmp_path, GapSettings(seconds=(0.7, 0.85)), frame_times=unit, every_pair=True)
    assert all_pairs(far) == {(1, 4)}
    consecutive = FrameSource(tmp_path, GapSettings(frames=(1, 1)), frame_times=unit)
    assert {round(pair.seconds, 6) for pair in consecutive.clips(0, 100, draw())} == {0.05, 0.053, 0.047}


def test_seconds_and_their_fraction_are_one_time(tmp_path):
    for number in range(12):
        write_frames(tmp_path, [number], name=f"{1305031102 + number // 5}.{number % 5 * 200_000 + 313:06d}.png")
    source = FrameSource(tmp_path, GapSettings(seconds=(0.4, 0.4)), frame_times="s", every_pair=True)
    assert all_pairs(source, seeds=1) == {(number, number + 2) for number in range(10)}
    assert source.clips(3, 1, draw())[0].seconds == pytest.approx(0.4)


def test_times_that_are_not_in_the_names_are_refused(tmp_path):
    write_frames(tmp_path, range(3), name="{}.png")
    for number, name in enumerate("abc"):
        write_frames(tmp_path / "b", [number], name=f"{name}.png")
    with pytest.raises(ValueError, match=r"b: data.frame_times=ms needs times in the names, which a.png has not"):
        FrameSource(tmp_path, FRAMES, frame_times="ms")


def test_a_damaged_image_is_rejected_by_its_name(tmp_path):
    write_frames(tmp_path / "a", range(10))
    (tmp_path / "a" / "frame_000004.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    source = FrameSource(tmp_path, GapSettings(frames=(4, 4)), every_pair=True)
    assert source.clips(1, 1, draw())
    for index in (0, 4):
        with pytest.raises(SampleError, match=r"a/frame_000004.png: cannot be read as an image"):
            source.clips(index, 1, draw())


def test_frames_that_change_size_are_rejected(tmp_path):
    write_frames(tmp_path / "a", range(2))
    Image.new("RGB", (20, 10)).save(tmp_path / "a" / "frame_000002.png")
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    with pytest.raises(SampleError, match="differ in size: 128x96 and 20x10"):
        source.clips(1, 1, draw())


def test_a_folder_too_short_for_the_gap_is_rejected(decoded):
    source = FrameSource(decoded, GapSettings(frames=(5, 12)))
    assert source.clips(0, 1, draw())
    with pytest.raises(SampleError, match="b: too short: it has 12 frames"):
        source.clips(1, 1, draw())


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
        ({"gap": {"seconds": [0.5, float("inf")]}}, "should be a finite number"),
        ({"gap": {"frames": [1.5, 3]}}, "integer"),
        ({"source": "videos"}, "data.source=videos needs data.path"),
        ({"path": "somewhere"}, "data.path is somewhere, but data.source=synthetic reads no files"),
        ({"source": "videos", "path": "x", "every_pair": True}, "needs data.source=frames, got videos"),
        ({"source": "videos", "path": "x", "frame_times": "ms"}, "needs data.source=frames, got videos"),
        ({"source": "frames", "path": "x", "frame_times": "minutes"}, "'s', 'ms', 'us' or 'ns'"),
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
