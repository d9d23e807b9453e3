"""Real videos, frame by frame against what the ffmpeg command decodes of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from make_video_reference import OUTPUT, ffmpeg_frames, ffmpeg_times
from video_clips import thumbnails

from midway_hub.video import READERS, FrameReader, VideoError, available_readers, open_video

REFERENCE = np.load(OUTPUT)
CLIPS = sorted({key.split("/")[0] for key in REFERENCE.files})
DAMAGED = "corrupted_720p.mp4"
SOUND = [clip for clip in CLIPS if clip != DAMAGED]
REFUSED = {
    "decord": {
        "cockatoo_720p_yuv444.mp4": "4:4:4",
        "derived_trimcopy_cockatoo.mp4": "edit list",
        "derived_truncated_faststart_udacity.mp4": "cut off",
        "nasa_13013_multistream.mp4#0": "cannot choose a stream",
        "pattern_av1.mkv": "av1",
    },
    "torchcodec": {"cockatoo_720p_yuv444.mp4": "4:4:4"},
}
# Conversion of more than 8 bits differs between versions of FFmpeg's scaler.
LEVELS = {"pattern_h264_10bit.mp4": 3.0}


def open_clip(videos: Path, clip: str, **options) -> FrameReader:
    name, _, stream = clip.partition("#")
    return open_video(videos / name, stream=int(stream) if stream else None, **options)


def skip_without(reader: str) -> None:
    state = available_readers()[reader]
    if not state[0].isdigit():
        pytest.skip(f"{reader}: {state}")


def assert_frames_are(numbers, frames: np.ndarray, clip: str) -> None:
    """Each frame is at most a level from its own reference thumbnail, and no other thumbnail is nearer."""
    reference = REFERENCE[f"{clip}/thumbnails"].astype(float) / 256
    found = np.stack(list(thumbnails(frames, reference.shape[1]))).astype(float) / 256
    for number, thumbnail in zip(numbers, found, strict=True):
        distances = np.abs(reference - thumbnail).mean(axis=(1, 2))
        assert distances[number] <= LEVELS.get(clip, 0.5), (
            f"{clip}: frame {number} is {distances[number]:.2f} levels off"
        )
        nearest = int(distances.argmin())
        assert distances[number] <= distances[nearest] + 1e-9, f"{clip}: asked for frame {number}, got {nearest}"


@pytest.mark.parametrize("clip", SOUND)
def test_a_video_has_the_frames_and_times_that_ffmpeg_puts_out(sample_videos, clip):
    times = REFERENCE[f"{clip}/times"]
    with open_clip(sample_videos, clip, num_threads=1) as reader:
        assert len(reader) == len(times)
        np.testing.assert_allclose(reader.timestamps, times - times[0], atol=1e-3)
        assert (np.diff(reader.timestamps) > 0).all()
        assert reader.fps == pytest.approx(len(times) / reader.duration)


@pytest.mark.parametrize(
    ("name", "clip"), [(name, clip) for name in READERS for clip in SOUND if clip not in REFUSED.get(name, {})]
)
def test_every_reader_returns_exactly_the_frames_asked_for(sample_videos, name, clip):
    skip_without(name)
    with open_clip(sample_videos, clip, reader=name, num_threads=1) as reader:
        assert reader.name == name
        numbers = np.random.default_rng(7).integers(0, len(reader), 8)
        numbers = [*numbers.tolist(), 0, len(reader) - 1]
        frames = reader.get_frames(numbers)
        assert frames.shape == (10, reader.height, reader.width, 3)
        assert frames.dtype == np.uint8
        assert_frames_are(numbers, frames, clip)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("clip", SOUND)
def test_streaming_a_video_gives_every_frame_in_order(sample_videos, clip, threads):
    with open_clip(sample_videos, clip, num_threads=threads) as reader:
        seen = []
        for numbers, frames in reader.iterate(batch=16):
            assert_frames_are(numbers, frames, clip)
            seen.extend(numbers.tolist())
        assert seen == list(range(len(reader)))


@pytest.mark.parametrize(("name", "clip"), [(name, clip) for name, clips in REFUSED.items() for clip in clips])
def test_a_reader_that_would_be_wrong_is_refused_with_the_reason(sample_videos, name, clip):
    skip_without(name)
    with pytest.raises(
        VideoError, match=rf"'{name}' is not exact for this file: .*{REFUSED[name][clip]}.*use reader='auto'"
    ):
        open_clip(sample_videos, clip, reader=name)


@pytest.mark.parametrize("name", [name for name in READERS if name != "pyav"])
def test_readers_agree_on_colours(sample_videos, name):
    skip_without(name)
    for clip in ("udacity_highway_720p.mp4", "pattern_h264_10bit.mp4", "pancake.mkv", "rotation_90.mov"):
        with open_clip(sample_videos, clip) as ours, open_clip(sample_videos, clip, reader=name) as theirs:
            difference = ours.get_frames([1]).astype(int) - theirs.get_frames([1])
            assert np.abs(difference).mean() < 2, clip


def test_the_automatic_choice_reports_damage(sample_videos):
    for clip in SOUND:
        with open_clip(sample_videos, clip) as reader:
            assert READERS[reader.name].reports_damage


def test_a_damaged_video_gives_its_sound_frames_and_an_error_for_each_other(sample_videos):
    times = REFERENCE[f"{DAMAGED}/times"]
    with open_clip(sample_videos, DAMAGED, num_threads=1) as reader:
        assert len(reader) == 50
        for number in range(29):
            (place,) = np.flatnonzero(np.isclose(times, reader.timestamps[number]))
            assert_frames_are([int(place)], reader.get_frames([number]), DAMAGED)
        for number in range(29, 50):  # the file has no second key frame
            with pytest.raises(
                VideoError, match=rf"corrupted_720p\.mp4: frame {number} cannot be decoded: damaged from packet 29 on"
            ):
                reader.get_frames([number])


@pytest.mark.parametrize(
    ("clip", "width", "height", "rotation"),
    [("derived_rot90_udacity.mov", 720, 1280, 270), ("rotation_90.mov", 320, 568, 90), ("rotation_0.mov", 568, 320, 0)],
)
def test_size_is_that_of_the_picture_as_displayed(sample_videos, clip, width, height, rotation):
    with open_clip(sample_videos, clip) as reader:
        assert (reader.width, reader.height, reader.rotation) == (width, height, rotation)


def test_the_default_stream_is_the_one_that_ffmpeg_picks_and_another_can_be_chosen(sample_videos):
    path = sample_videos / "nasa_13013_multistream.mp4"
    with open_video(path) as best, open_video(path, stream=0) as first:
        assert (best.width, best.height, len(best)) == (480, 270, 390)
        assert (first.width, first.height, len(first)) == (320, 180, 325)
    with pytest.raises(
        VideoError, match=r"stream 1 is no video stream; the video streams are 0 \(320x180\), 3 \(480x270\)"
    ):
        open_video(path, stream=1)


def test_a_decoder_that_starts_inside_knows_who_encoded_the_video(sample_videos):
    """Only the first packet names the version of x264, whose 4:4:4 streams have to be decoded in another way."""
    with open_video(sample_videos / "cockatoo_720p_yuv444.mp4", num_threads=1) as reader:
        assert_frames_are([94], reader.get_frames([94]), "cockatoo_720p_yuv444.mp4")


def test_a_variable_frame_rate_is_averaged(sample_videos):
    with open_video(sample_videos / "derived_vfr_cockatoo.mp4") as reader:
        assert reader.fps == pytest.approx(14.5)
        assert np.ptp(np.diff(reader.timestamps)) > 0.5


def test_behind_the_end_of_a_cut_off_video_an_error_says_how_many_frames_there_are(sample_videos, caplog):
    with open_video(sample_videos / "derived_truncated_faststart_udacity.mp4") as reader:
        assert len(reader) == 13
        with pytest.raises(
            VideoError, match="frame 13 cannot be read, only the first 13 frames can: the file is cut off"
        ):
            reader.get_frames([0, 13])
        with pytest.raises(IndexError, match="frame 38 is out of range"):
            reader.get_frames([38])
    assert "only the first 13 frames can be read" in caplog.text


def test_a_video_whose_index_was_cut_off_cannot_be_opened(sample_videos):
    with pytest.raises(VideoError, match=r"cannot be opened as a video: .*cut off, 122819 bytes of it are missing"):
        open_video(sample_videos / "derived_truncated_nomoov_pancake.mov")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed")
@pytest.mark.parametrize("clip", SOUND)
def test_the_installed_ffmpeg_puts_out_the_same_pictures(sample_videos, clip):
    name, _, stream = clip.partition("#")
    path, chosen = sample_videos / name, int(stream) if stream else None
    with open_clip(sample_videos, clip) as reader:
        times = ffmpeg_times(path, chosen)
        np.testing.assert_allclose(reader.timestamps, times - times[0], atol=1e-3)
        live = ffmpeg_frames(path, chosen, reader.width, reader.height)
        for _, frames in reader.iterate():
            for frame in frames:
                assert np.abs(frame.astype(int) - next(live)).mean() < LEVELS.get(clip, 0.5)
        assert next(live, None) is None
