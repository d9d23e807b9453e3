"""Frame-exact reading of clips made on the spot, whose key frames and times are arranged to mislead a reader."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import HEIGHT, WIDTH, number_of, numbered_frame, numbers_of, trimmed_copy, write_clip

from midway_hub.video import READERS, FrameReader, VideoError, available_readers, open_video

X264 = {"g": "12", "bf": "3", "x264-params": "scenecut=0:threads=1"}
OPEN_GOP = X264 | {"x264-params": "scenecut=0:threads=1:open-gop=1"}
X265 = {
    "x265-params": "keyint=12:bframes=3:open-gop=1:log-level=error:pools=none:frame-threads=1",
    "preset": "ultrafast",
}
UNEVEN = np.cumsum([1 + (i % 5 == 0) * 3 + (i % 7 == 0) for i in range(60)]).tolist()

CLIPS = {
    "B-frames.mp4": {"options": X264},
    "B-frames.mkv": {"options": X264},
    "B-frames.ts": {"options": X264},
    "B-frames.avi": {"options": X264},
    "open GOP.mp4": {"options": OPEN_GOP},
    "open GOP.mkv": {"options": OPEN_GOP},
    "intra refresh.mp4": {"options": X264 | {"x264-params": "intra-refresh=1:threads=1"}},
    "variable rate.mp4": {"options": X264, "times": UNEVEN},
    "variable rate.mkv": {"options": X264, "times": UNEVEN},
    "fragments.mp4": {"options": X264, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "key frames only.mp4": {"options": {"g": "1"}},
    "one key frame.mp4": {"options": {"g": "999", "x264-params": "scenecut=0:threads=1"}},
    "ten bits.mp4": {"options": X264, "pixel_format": "yuv420p10le"},
    "no subsampling.mp4": {"options": X264, "pixel_format": "yuv444p"},
    "HEVC open GOP.mp4": {"codec": "libx265", "options": X265},
    "HEVC open GOP.mkv": {"codec": "libx265", "options": X265},
    "AV1.mp4": {"codec": "libsvtav1", "options": {"g": "12", "preset": "12", "crf": "15"}},
    "VP9.webm": {
        "codec": "libvpx-vp9",
        "options": {"g": "12", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"},
    },
    "VP8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8", "b": "1M"}},
    "MPEG-4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "qmin": "2", "qmax": "4"}},
    "MPEG-4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "qmin": "2", "qmax": "4"}},
    "MPEG-2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "qmin": "2", "qmax": "4"}},
    "MJPEG.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"qmin": "2", "qmax": "4"}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a clip of CLIPS once, and skips where this build of PyAV has no such encoder."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / name
        codec = CLIPS[name].get("codec", "libx264")
        if codec not in av.codecs_available:
            pytest.skip(f"this build of PyAV has no encoder {codec}")
        return path if path.exists() else write_clip(path, **CLIPS[name])

    return make


@pytest.mark.parametrize("clip", CLIPS)
def test_frames_in_random_order_are_the_ones_asked_for(made, clip):
    with open_video(made(clip), num_threads=1) as reader:
        assert len(reader) == 60
        order = np.random.default_rng(1).permutation(60)
        assert [number_of(reader.get_frames([n])[0]) for n in order] == order.tolist()


@pytest.mark.parametrize("clip", CLIPS)
def test_streaming_gives_every_frame_once(made, clip):
    with open_video(made(clip), num_threads=1) as reader:
        assert [n for _, frames in reader.iterate(batch=7) for n in numbers_of(frames)] == list(range(60))


@pytest.mark.parametrize("clip", ["B-frames.mp4", "open GOP.mp4", "HEVC open GOP.mp4", "VP9.webm", "intra refresh.mp4"])
def test_threads_change_nothing(made, clip):
    order = np.random.default_rng(2).permutation(60).tolist()
    with open_video(made(clip), num_threads=1) as one, open_video(made(clip), num_threads=3) as three:
        np.testing.assert_array_equal(one.get_frames(order), three.get_frames(order))
        assert [number_of(three.get_frames([n])[0]) for n in order] == order


@pytest.mark.parametrize("name", [name for name in READERS if name != "pyav"])
@pytest.mark.parametrize("clip", CLIPS)
def test_other_readers_are_exact_or_refused(made, clip, name):
    if not available_readers()[name][0].isdigit():
        pytest.skip(f"{name}: {available_readers()[name]}")
    try:
        reader = open_video(made(clip), reader=name, num_threads=1)
    except VideoError as error:
        refusal = str(error)
    else:
        with reader:
            numbers = np.random.default_rng(3).permutation(60).tolist()
            given = [_number_or_error(reader, n) for n in numbers]
        wrong = [(n, got) for n, got in zip(numbers, given, strict=True) if got not in (n, "error")]
        assert wrong == []
        return
    assert "use reader='auto'" in refusal


def _number_or_error(reader: FrameReader, number: int) -> int | str:
    try:
        return number_of(reader.get_frames([number])[0])
    except VideoError:
        return "error"


def test_times_are_those_of_the_frames(made):
    for clip in ("variable rate.mp4", "variable rate.mkv"):
        with open_video(made(clip)) as reader:
            np.testing.assert_allclose(reader.timestamps, (np.array(UNEVEN) - UNEVEN[0]) / 30, atol=1e-3)


@pytest.mark.parametrize("first", [1, 5, 12, 17])
def test_frames_that_an_edit_list_hides_are_not_counted(made, tmp_path, first):
    source = made("B-frames.mp4")
    path = trimmed_copy(source, tmp_path / "trimmed.mp4", first)
    with open_video(path, num_threads=1) as reader, av.open(str(path)) as container:
        shown = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        assert shown[0] == first
        assert reader.timestamps[0] == 0
        assert [number_of(reader.get_frames([n])[0]) for n in reversed(range(len(reader)))] == shown[::-1]


def test_leading_pictures_without_their_key_frame_are_not_counted(made, tmp_path):
    """An HEVC file that starts at the key frame of an open GOP, before which some pictures are shown."""
    source, path = made("HEVC open GOP.mp4"), tmp_path / "starts inside.mp4"
    with av.open(str(source)) as given, av.open(str(path), "w", options={"use_editlist": "0"}) as made_file:
        copy = made_file.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        second_key = [i for i, packet in enumerate(packets) if packet.is_keyframe][1]
        leading = sum(packet.pts < packets[second_key].pts for packet in packets[second_key:])
        shift = min(packet.pts for packet in packets[second_key:])
        for packet in packets[second_key:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            made_file.mux(packet)
    assert leading
    with open_video(path, num_threads=1) as reader:
        assert len(reader) == len(packets) - second_key - leading
        numbers = [number_of(reader.get_frames([n])[0]) for n in range(len(reader))]
        assert numbers == list(range(60 - len(reader), 60))


@pytest.mark.parametrize(
    ("matrix", "turned", "rotation"),
    [
        ((1, 0, 0, 1), lambda f: f, 0),
        ((0, 1, -1, 0), lambda f: np.rot90(f, -1), 90),
        ((-1, 0, 0, -1), lambda f: np.rot90(f, 2), 180),
        ((0, -1, 1, 0), lambda f: np.rot90(f, 1), 270),
        ((-1, 0, 0, 1), lambda f: f[:, ::-1], None),
        ((1, 0, 0, -1), lambda f: f[::-1], None),
        ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1), None),
    ],
)
def test_pictures_are_turned_and_mirrored_as_the_display_matrix_says(made, tmp_path, matrix, turned, rotation):
    data = bytearray(made("key frames only.mp4").read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    with open_video(made("key frames only.mp4")) as straight, open_video(path) as reader:
        expected = turned(straight.get_frames([9])[0])
        np.testing.assert_array_equal(reader.get_frames([9])[0], expected)
        assert (reader.height, reader.width) == expected.shape[:2]
        assert rotation is None or reader.rotation == rotation


def test_a_change_of_size_within_a_stream_is_scaled_to_the_first_size(tmp_path):
    path = tmp_path / "grows.ts"
    small, large = write_clip(tmp_path / "small.ts", 12, options=X264), tmp_path / "large.ts"
    with av.open(str(large), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=X264)
        stream.width, stream.height, stream.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv420p"
        for number in range(12, 24):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number).repeat(2, 0).repeat(2, 1), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(path, num_threads=1) as reader:
        frames = reader.get_frames(range(len(reader)))
        assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
        assert numbers_of(frames) == list(range(24))


def test_a_container_that_gives_other_packets_after_seeking_is_read_from_its_start(tmp_path):
    path = write_clip(tmp_path / "long.mpg", 120, codec="mpeg2video", options={"g": "12", "bf": "2"})
    with open_video(path, num_threads=1) as reader:
        order = np.random.default_rng(4).permutation(120).tolist()
        assert [number_of(reader.get_frames([n])[0]) for n in order] == order


def test_one_frame_is_a_video(tmp_path):
    with open_video(write_clip(tmp_path / "one.mp4", 1)) as reader:
        assert (len(reader), reader.timestamps.tolist()) == (1, [0.0])
        assert reader.duration > 0
        assert numbers_of(reader.get_frames([0, -1])) == [0, 0]
