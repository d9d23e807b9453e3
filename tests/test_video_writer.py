import av
import numpy as np
import pytest
from PIL import Image
from video_clips import numbered_frame, numbers_of

from midway_hub.video import VideoError, open_video
from midway_hub.video import writer as writer_module
from midway_hub.video.writer import write_video


def test_frames_come_back_in_order_at_their_rate(tmp_path):
    told = []
    frames = (numbered_frame(number) for number in range(40))
    assert write_video(tmp_path / "clip.mp4", frames, fps=29.97, progress=told.append) == 40
    assert told == list(range(1, 41))
    with open_video(tmp_path / "clip.mp4") as video:
        assert (len(video), video.height, video.width) == (40, 96, 128)
        assert video.fps == pytest.approx(29.97)
        assert numbers_of(video.get_frames(range(40))) == list(range(40))


def test_it_is_h264_that_plays_everywhere_and_starts_at_once(tmp_path):
    write_video(tmp_path / "clip.mp4", [numbered_frame(0)] * 3, fps=10)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_colours_stay_what_they_were(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)]
    frames = [np.full((64, 96, 3), colour, dtype=np.uint8) for colour in colours]
    write_video(tmp_path / "colours.mp4", frames, fps=5)
    with open_video(tmp_path / "colours.mp4") as video:
        seen = video.get_frames(range(len(colours))).astype(int)
    assert np.abs(seen - np.array(frames, dtype=int)).max() <= 3


def test_odd_sides_are_padded_by_their_edge(tmp_path):
    frame = np.zeros((33, 47, 3), dtype=np.uint8)
    frame[-8:], frame[:, -8:] = 255, 255
    write_video(tmp_path / "odd.mp4", [frame] * 2, fps=5, crf=1)
    with open_video(tmp_path / "odd.mp4") as video:
        assert (video.height, video.width) == (34, 48)
        seen = video.get_frames([0])[0].astype(int)
    assert np.abs(seen[:33, :47] - frame).max() < 20
    assert seen[-1].min() > 235
    assert seen[:, -1].min() > 235


def test_a_webm_plays_the_same_frames(tmp_path):
    assert write_video(tmp_path / "clip.webm", (numbered_frame(number) for number in range(12)), fps=29.97) == 12
    with av.open(str(tmp_path / "clip.webm")) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")
    with open_video(tmp_path / "clip.webm") as video:
        assert (len(video), video.height, video.width) == (12, 96, 128)
        assert video.fps == pytest.approx(29.97, rel=0.02)
        assert numbers_of(video.get_frames(range(12))) == list(range(12))


@pytest.mark.parametrize(("fps", "duration"), [(12, 80), (25, 40), (50, 20)])
def test_a_gif_shows_the_same_frames_at_their_rate(tmp_path, fps, duration):
    frames = [numbered_frame(number)[:95, :127] for number in range(9)]
    assert write_video(tmp_path / "clip.gif", iter(frames), fps=fps) == 9
    with Image.open(tmp_path / "clip.gif") as picture:
        assert (picture.n_frames, picture.size) == (9, (127, 95))
        for number, frame in enumerate(frames):
            picture.seek(number)
            assert picture.info["duration"] == pytest.approx(duration, abs=10)
            seen = np.asarray(picture.convert("RGB"))
            assert np.abs(seen.astype(int) - frame).mean() < 8
            assert numbers_of([seen]) == [number]


def test_colours_of_a_gif_are_chosen_for_every_frame(tmp_path):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(64, axis=0)
    zero = np.zeros_like(ramp)
    frames = [np.stack(channels, -1) for channels in ((ramp, zero, zero), (zero, ramp, zero), (zero, zero, ramp))]
    write_video(tmp_path / "ramps.gif", frames, fps=5)
    with Image.open(tmp_path / "ramps.gif") as picture:
        for number, frame in enumerate(frames):
            picture.seek(number)
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - frame).max() <= 16


@pytest.mark.parametrize("name", ["clip.gif", "clip.webm"])
def test_an_error_halfway_leaves_no_other_kind_of_file_either(tmp_path, name):
    with pytest.raises(ValueError, match="frame 1 is"):
        write_video(tmp_path / name, [numbered_frame(0), numbered_frame(1)[:50]], fps=5)
    assert list(tmp_path.iterdir()) == []


def test_no_frames_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "clip.mp4", [], fps=5)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_changing_size_are_an_error_that_names_both_and_leaves_the_old_file(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"old")
    frames = [np.zeros((32, 48, 3), dtype=np.uint8), np.zeros((48, 32, 3), dtype=np.uint8)]
    with pytest.raises(ValueError, match=r"frame 1 is 48×32 .* before it 32×48"):
        write_video(tmp_path / "clip.mp4", frames, fps=5)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("clip.mp4", b"old")]


def test_an_error_of_what_makes_the_frames_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((32, 48, 3), dtype=np.uint8)
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        write_video(tmp_path / "clip.mp4", frames(), fps=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [np.zeros((32, 48, 3)), np.zeros((32, 48), dtype=np.uint8), np.zeros((32, 48, 4), dtype=np.uint8), "frame"]
)
def test_what_is_no_frame_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"frame 0 is .*; wanted a uint8 array"):
        write_video(tmp_path / "clip.mp4", [wrong], fps=5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip.avi", {"fps": 5}, "written as .mp4 .webm .gif, got the ending '.avi'"),
        ("clip.mp4", {"fps": 0}, "fps must be above 0"),
        ("clip.mp4", {"fps": float("nan")}, "fps must be above 0"),
        ("clip.gif", {"fps": 60}, "at most 50 frames per second, got 60"),
        ("clip.mp4", {"fps": 5, "crf": 52}, "crf must be"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, [numbered_frame(0)], **options)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write clip.mp4 into"):
        write_video(tmp_path / "nowhere" / "clip.mp4", [numbered_frame(0)], fps=5)


def test_a_pyav_without_h264_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "CODEC", "no_such_codec")
    with pytest.raises(VideoError, match="pip install"):
        write_video(tmp_path / "clip.mp4", [numbered_frame(0)], fps=5)
    assert list(tmp_path.iterdir()) == []
