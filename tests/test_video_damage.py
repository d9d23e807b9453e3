"""Files that are cut off, overwritten or no videos at all: right frames or an error, never another frame."""

import logging
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import number_of, packet_places, trimmed_copy, write_clip

from midway_hub.video import FrameReader, VideoError, open_video

X264 = {"g": "15", "bf": "3", "crf": "10", "x264-params": "scenecut=0:threads=1"}
OPEN_GOP = X264 | {"x264-params": "scenecut=0:threads=1:open-gop=1"}
NO_B_FRAMES = X264 | {"bf": "0"}
INDEX_FIRST = {"movflags": "faststart"}


def overwrite(path: Path, target: Path, first: int, size: int, seed: int = 0) -> Path:
    """A copy in which some bytes are others."""
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(seed).integers(1, 256, size, dtype=np.uint8)
    for at, value in enumerate(noise.tolist(), first):
        data[at] ^= value
    target.write_bytes(data)
    return target


def frames_and_errors(reader: FrameReader, numbers) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    frames, errors = {}, {}
    for number in numbers:
        try:
            frames[number] = reader.get_frames([number])[0]
        except VideoError as error:
            errors[number] = str(error)
    return frames, errors


def assert_only_right_frames(frames: dict[int, np.ndarray], clean: Path) -> None:
    with open_video(clean, num_threads=1) as reader:
        wrong = [n for n, frame in frames.items() if not np.array_equal(frame, reader.get_frames([n])[0])]
    assert wrong == []


@pytest.mark.parametrize("order", ["forward", "backward", "random", "damage first"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", [X264, OPEN_GOP, NO_B_FRAMES], ids=["B-frames", "open GOP", "no B-frames"])
def test_a_damaged_packet_spoils_what_refers_to_it_and_nothing_else(tmp_path, options, threads, order):
    clean = write_clip(tmp_path / "clean.mp4", options=options)
    places = packet_places(clean)
    offset, size, key = places[19]
    assert not key
    damaged = overwrite(clean, tmp_path / "damaged.mp4", offset, size)
    numbers = list(range(60))
    if order == "backward":
        numbers.reverse()
    elif order == "random":
        np.random.default_rng(0).shuffle(numbers)
    elif order == "damage first":
        numbers = [28, *numbers]
    with open_video(damaged, num_threads=threads) as reader:
        assert len(reader) == 60
        frames, errors = frames_and_errors(reader, numbers)
        entries, ordinals = reader.index.entries, reader.index.ordinals
        (entry,) = entries[ordinals == 19]
        expected = {n for n in range(60) if entries[n] == entry and ordinals[n] >= 19}
    assert set(errors) == expected
    assert all(f"frame {n} cannot be decoded: damaged from packet 19 on: " in text for n, text in errors.items())
    assert_only_right_frames(frames, clean)


@pytest.mark.parametrize("packet", [16, 24])
def test_damage_that_only_shows_in_a_picture_spoils_the_pictures_shown_before_it_too(tmp_path, packet):
    """The end of a P picture: the decoder patches it up, and puts out the B pictures that refer to it first."""
    clean = write_clip(tmp_path / "clean.mp4", options=X264)
    offset, size, _ = packet_places(clean)[packet]
    damaged = overwrite(clean, tmp_path / "damaged.mp4", offset + size // 2, size // 2)
    with open_video(damaged, num_threads=1) as reader:
        frames, errors = frames_and_errors(reader, range(60))
        expected = {n for n in range(15, 30) if reader.index.ordinals[n] >= packet}
    assert set(errors) == expected
    assert min(expected) < packet_numbers(clean)[packet]
    assert_only_right_frames(frames, clean)


def packet_numbers(path: Path) -> list[int]:
    """The frame that each packet of a whole clip holds, in decode order."""
    with open_video(path) as reader:
        return np.argsort(reader.index.ordinals).tolist()


def test_a_picture_that_the_decoder_passes_over_spoils_what_refers_to_it(tmp_path):
    clean = write_clip(tmp_path / "clean.mp4", options=NO_B_FRAMES)
    offset, _, _ = packet_places(clean)[20]
    data = bytearray(clean.read_bytes())
    data[offset + 4] = 12  # the type of a unit that decoders skip
    (tmp_path / "damaged.mp4").write_bytes(data)
    with open_video(tmp_path / "damaged.mp4", num_threads=1) as reader:
        frames, errors = frames_and_errors(reader, range(60))
    assert set(errors) == set(range(20, 30))
    assert "frame 25 cannot be decoded: damaged from packet 20 on" in errors[25]
    assert_only_right_frames(frames, clean)


@pytest.mark.parametrize(
    ("codec", "part", "spoilt"), [("mpeg4", 2, {19, *range(20, 30)} - {21}), ("mjpeg", 2, {20}), ("libx265", 1, None)]
)
def test_damage_in_other_codecs_is_an_error_too(tmp_path, codec, part, spoilt):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no encoder {codec}")
    options = {
        "mpeg4": {"g": "15", "bf": "2", "qmin": "2", "qmax": "4"},
        "libx265": {"x265-params": "keyint=15:open-gop=0:log-level=error:pools=none:frame-threads=1", "crf": "18"},
        "mjpeg": {"qmin": "2", "qmax": "4"},
    }[codec]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clean = write_clip(tmp_path / "clean.mov", codec=codec, options=options, pixel_format=pixels)
    offset, size, _ = packet_places(clean)[20]
    damaged = overwrite(clean, tmp_path / "damaged.mov", offset + size - size // part, size // part)
    with open_video(damaged, num_threads=1) as reader:
        frames, errors = frames_and_errors(reader, range(60))
    assert set(errors) == spoilt if spoilt else errors
    assert {0, 1, 14, 59} <= set(frames)
    assert_only_right_frames(frames, clean)


@pytest.mark.parametrize("packet", [0, 2, 3])
def test_damage_before_the_start_of_an_edit_list_spoils_what_refers_to_it(tmp_path, packet):
    source = write_clip(tmp_path / "source.mp4", options=X264)
    clean = trimmed_copy(source, tmp_path / "clean.mp4", 10)
    offset, size, _ = packet_places(clean)[packet]
    damaged = overwrite(clean, tmp_path / "damaged.mp4", offset + size // 2, size // 2)
    with open_video(damaged, num_threads=1) as reader:
        frames, errors = frames_and_errors(reader, range(len(reader)))
    assert set(errors) == {0, 1, 2, 3, 4}
    assert_only_right_frames(frames, clean)


def test_streaming_stops_with_an_error_at_damage(tmp_path):
    clean = write_clip(tmp_path / "clean.mp4", options=NO_B_FRAMES)
    offset, size, _ = packet_places(clean)[20]
    damaged = overwrite(clean, tmp_path / "damaged.mp4", offset, size)
    with open_video(damaged) as reader:
        batches = reader.iterate(batch=1)
        assert [int(next(batches)[0][0]) for _ in range(20)] == list(range(20))
        with pytest.raises(VideoError, match="frame 20 cannot be decoded"):
            next(batches)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize("options", [X264, NO_B_FRAMES], ids=["B-frames", "no B-frames"])
def test_frames_before_a_cut_are_right_wherever_it_falls(tmp_path, name, options, caplog):
    clean = write_clip(tmp_path / name, options=options, muxer=INDEX_FIRST if name.endswith("mp4") else None)
    places = packet_places(clean)
    cut = tmp_path / f"cut {name}"
    for last in (3, 17, 30, 31, 44):
        for inside in (0, 1, places[last][1] // 2, places[last][1] - 1):
            cut.write_bytes(clean.read_bytes()[: places[last][0] + inside])
            caplog.clear()
            with open_video(cut, num_threads=1) as reader:
                assert last - 3 <= len(reader) <= last
                assert [number_of(frame) for frame in reader.get_frames(range(len(reader)))] == list(range(len(reader)))
                with pytest.raises(VideoError, match=rf"only the first {len(reader)} frames can: the file is cut off"):
                    reader.get_frames([len(reader)])
            assert f"only the first {len(reader)} frames can be read" in caplog.text


def test_a_file_cut_within_its_sound_has_all_its_frames(tmp_path, caplog):
    path = write_clip(tmp_path / "clip.mp4", options=X264, muxer=INDEX_FIRST)
    data = path.read_bytes()
    offset, size, _ = packet_places(path)[-1]
    assert offset + size == len(data)
    longer = data.replace(
        (len(data) - data.index(b"mdat") + 4).to_bytes(4, "big") + b"mdat", (1 << 20).to_bytes(4, "big") + b"mdat"
    )
    path.write_bytes(longer)
    with open_video(path) as reader:
        assert len(reader) == 60
    assert not caplog.records


def test_frames_lost_inside_a_matroska_file_do_not_shift_the_others(tmp_path):
    """Its demuxer looks for the next cluster and goes on; the numbers of the frames there could not be known."""
    clean = write_clip(tmp_path / "clean.mkv", options=NO_B_FRAMES, muxer={"cluster_time_limit": "200"})
    offset, size, _ = packet_places(clean)[20]
    damaged = overwrite(clean, tmp_path / "damaged.mkv", offset - 8, size)
    with open_video(damaged) as reader:
        assert 15 <= len(reader) <= 20
        assert [number_of(frame) for frame in reader.get_frames(range(len(reader)))] == list(range(len(reader)))
        with pytest.raises(VideoError, match="the container is damaged at byte"):
            reader.get_frames([len(reader)])


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["pancake.mkv", "dog_mpeg4.mp4", "nasa_13013_multistream.mp4"])
def test_flipped_bytes_in_a_real_video_never_give_a_wrong_frame(sample_videos, tmp_path, clip):
    path = sample_videos / clip
    with open_video(path) as reader:
        truth = {
            int(n): frame for numbers, frames in reader.iterate() for n, frame in zip(numbers, frames, strict=True)
        }
    size, flawed = path.stat().st_size, 0
    for seed, count in enumerate((1, 30, 200, 2000)):
        at = int(np.random.default_rng(seed).integers(size // 5, 4 * size // 5))
        with open_video(overwrite(path, tmp_path / f"flipped {clip}", at, count, seed)) as reader:
            frames, errors = frames_and_errors(reader, range(0, len(reader), 3))
            assert [n for n, frame in frames.items() if not np.array_equal(frame, truth[n])] == []
            flawed += bool(errors) or len(reader) < len(truth)
    assert flawed >= 2


NOT_VIDEOS = {
    "empty.mp4": (b"", r"is empty \(0 bytes\)"),
    "text.mp4": (b"dear diary\n" * 100, "cannot be opened as a video"),
    "text.txt": (b"dear diary\n" * 100, "cannot be opened as a video"),
    "noise.mkv": (np.random.default_rng(0).bytes(4096), "cannot be opened as a video"),
    "start of a matroska.mkv": (b"\x1a\x45\xdf\xa3", "cannot be opened as a video"),
    "start of a box.mp4": (b"\0\0\0\x20ftyp", "cannot be opened as a video.*is cut off"),
    "playlist.m3u8": (b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n", "cannot be opened|no video"),
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_a_file_that_is_no_video_is_an_error_that_names_it(tmp_path, name):
    content, reason = NOT_VIDEOS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=rf"{name}: .*({reason})"):
        open_video(tmp_path / name)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no video file .*gone\.mp4"):
        open_video(tmp_path / "gone.mp4")


def test_a_folder_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="is a directory or device"):
        open_video(tmp_path)


@pytest.mark.parametrize("cover", [False, True], ids=["no cover", "a cover picture"])
def test_sound_is_no_video(tmp_path, cover):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic.value
            container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"has no video stream \(it holds: audio"):
        open_video(path)


def test_a_video_whose_every_packet_is_destroyed_is_an_error(tmp_path):
    clean = write_clip(tmp_path / "clean.mp4", 20, options=X264)
    first, last = packet_places(clean)[0], packet_places(clean)[-1]
    damaged = overwrite(clean, tmp_path / "damaged.mp4", first[0], last[0] + last[1] - first[0])
    with pytest.raises(VideoError, match="no frame of video stream 0 can be decoded: Invalid data"):
        open_video(damaged)


def test_a_file_that_is_replaced_while_open_is_noticed(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", options=X264)
    other = write_clip(tmp_path / "other.mp4", 40, options=X264 | {"crf": "40"})
    with open_video(path) as reader:
        path.write_bytes(other.read_bytes())
        with pytest.raises(
            VideoError, match=r"it has changed since it was opened; open it again|reading the file fails"
        ):
            reader.get_frames([50])


def test_opening_many_videos_leaves_no_files_open(tmp_path):
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to count open files")
    path = write_clip(tmp_path / "clip.mp4", 10)
    code = (
        "import os, sys\nfrom midway_hub.video import open_video\n"
        "counts = []\n"
        "for _ in range(20):\n"
        "    with open_video(sys.argv[1], num_threads=1) as reader:\n"
        "        reader.get_frames([3])\n"
        "    counts.append(len(os.listdir('/proc/self/fd')))\n"
        "assert counts[0] == counts[-1], counts\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.WARNING, logger="midway_hub")
