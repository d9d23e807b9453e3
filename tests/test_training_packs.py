"""Packs hold the frames that they say, and give the pairs that the originals give."""

import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pack_clips import write_clips
from PIL import Image
from pydantic import ValidationError
from video_clips import number_of

from midway_hub.training.data.clip import ClipSource, SampleError
from midway_hub.training.data.packs import PackError, PackSettings, PackSource, forecast, pack
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.videos import VideoSource
from midway_hub.video import open_video

FORMS = ("jpeg", "h264")
GAP = GapSettings(frames=(15, 30))


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips") / "videos")


@pytest.fixture(scope="session")
def packs(clips, tmp_path_factory) -> dict[str, Path]:
    """A pack of all clips in each form."""
    folder = tmp_path_factory.mktemp("packs")
    for form in FORMS:
        pack(clips, folder / form, PackSettings(form=form, processes=1))
    return {form: folder / form for form in FORMS}


def draw(source: ClipSource, count: int, seed: int = 0) -> list:
    return [pair for index in range(len(source)) for pair in source.clips(index, count, np.random.default_rng(seed))]


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_those_that_the_originals_give_for_the_same_generator(clips, packs, form):
    packed, original = draw(PackSource(packs[form], GAP), 6), draw(VideoSource(clips, GAP), 6)
    assert [(p.name, p.frames) for p in packed] == [(p.name, p.frames) for p in original]
    assert [p.seconds for p in packed] == [p.seconds for p in original]
    for ours, theirs in zip(packed, original, strict=True):
        assert number_of(ours.first) == number_of(theirs.first)
        assert number_of(ours.second) == number_of(theirs.second)


@pytest.mark.parametrize("form", FORMS)
def test_pairs_by_seconds_are_those_of_the_originals(clips, packs, form):
    gap = GapSettings(seconds=(0.4, 0.9))
    packed, original = draw(PackSource(packs[form], gap), 6), draw(VideoSource(clips, gap), 6)
    assert [(p.name, p.frames, p.seconds) for p in packed] == [(p.name, p.frames, p.seconds) for p in original]


@pytest.mark.parametrize("form", FORMS)
def test_a_trimmed_clip_starts_at_its_first_visible_frame(packs, form):
    source = PackSource(packs[form], GAP)
    pairs = [pair for pair in draw(source, 6) if pair.name == "trimmed.mp4"]
    assert [number_of(pair.first) - pair.frames[0] for pair in pairs] == [17] * 6


@pytest.mark.parametrize(("form", "error"), [("jpeg", 3.0), ("h264", 5.0)])
def test_packed_frames_are_the_shrunk_originals_within_the_quality_asked_for(tmp_path, form, error):
    clip = Path(__file__).parents[1] / "midway_hub" / "samples" / "highway.mp4"
    pack(clip, tmp_path / "pack", PackSettings(form=form, short_side=180, max_frames=12, run=12, processes=1))
    pair = PackSource(tmp_path / "pack", GapSettings(frames=(5, 8))).clips(0, 1, np.random.default_rng(0))[0]
    with open_video(clip) as reader:
        exact = reader.get_frames(pair.frames)
    for ours, frame in zip((pair.first, pair.second), exact, strict=True):
        shrunk = np.asarray(Image.fromarray(frame).resize((320, 180), Image.Resampling.BICUBIC))
        assert ours.shape == (180, 320, 3)
        assert np.abs(ours.astype(int) - shrunk).mean() < error


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", ["derived_rot90_udacity.mov", "derived_vfr_cockatoo.mp4", "derived_trimcopy_cockatoo.mp4", "pancake.mkv"]
)
def test_real_clips_keep_numbers_times_and_orientation(sample_videos, tmp_path, form, name):
    settings = PackSettings(form=form, short_side=240, every=3, max_frames=40, run=20, processes=1)
    pack(sample_videos / name, tmp_path / "pack", settings)
    pairs = PackSource(tmp_path / "pack", GapSettings(frames=(6, 15))).clips(0, 5, np.random.default_rng(0))
    with open_video(sample_videos / name) as reader:
        for pair in pairs:
            frames = reader.get_frames(pair.frames)
            assert pair.seconds == reader.timestamps[pair.frames[1]] - reader.timestamps[pair.frames[0]]
            for ours, frame in zip((pair.first, pair.second), frames, strict=True):
                height, width = ours.shape[:2]
                assert (width > height) == (reader.width > reader.height)
                assert abs(width / height - reader.width / reader.height) < 0.02
                shrunk = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
                assert np.abs(ours.astype(int) - shrunk).mean() < 8


def test_small_frames_are_not_enlarged(packs):
    pair = PackSource(packs["jpeg"], GAP).clips(0, 1, np.random.default_rng(0))[0]
    assert pair.first.shape == (96, 128, 3)


def test_the_shards_are_tar_files_that_pillow_reads_picture_by_picture(packs, tmp_path):
    numbers = []
    for shard in sorted((packs["jpeg"] / "shards").glob("*.tar")):
        with tarfile.open(shard) as tar:
            tar.extractall(tmp_path, filter="data")
            numbers += [member.name for member in tar]
    assert numbers[:2] == ["day/plain.mp4/000000.jpg", "day/plain.mp4/000001.jpg"]
    with Image.open(tmp_path / "day" / "plain.mp4" / "000069.jpg") as image:
        assert number_of(np.asarray(image)) == 69


def test_the_short_gop_files_are_videos_of_their_own(packs):
    with open_video(packs["h264"] / "videos" / "uneven.mkv.mp4") as packed:
        assert len(packed) == 60
        assert [number_of(frame) for frame in packed.get_frames([0, 31, 59])] == [0, 31, 59]
        assert np.flatnonzero(packed.index.packets.key).tolist() == list(range(0, 60, 5))


@pytest.mark.parametrize("form", FORMS)
def test_reading_touches_only_the_bytes_of_the_frames_needed(packs, form, monkeypatch):
    import os

    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: read.append(size) or pread(file, size, offset))
    source = PackSource(packs[form], GAP)
    source.clips(0, 1, np.random.default_rng(0))
    rows = np.load(packs[form] / "shards" / "00000.npy")
    most = 2 * rows["length"].max() if form == "jpeg" else 2 * 5 * rows["length"].max()
    assert len(read) == 2
    assert sum(read) <= most


def test_every_thins_out_by_the_original_numbers(clips, tmp_path):
    pack(clips / "whole.mp4", tmp_path / "pack", PackSettings(every=3, processes=1))
    pairs = PackSource(tmp_path / "pack", GAP).clips(0, 30, np.random.default_rng(0))
    gaps = {pair.frames[1] - pair.frames[0] for pair in pairs}
    assert gaps == {15, 18, 21, 24, 27, 30}
    assert all(number_of(pair.second) == pair.frames[1] for pair in pairs)


def test_fps_keeps_the_first_frame_of_each_tick(clips, tmp_path):
    pack(clips / "whole.mp4", tmp_path / "pack", PackSettings(fps=10, processes=1))
    assert np.load(tmp_path / "pack" / "shards" / "00000.npy")["number"].tolist() == list(range(0, 70, 3))


def test_a_frame_budget_keeps_runs_and_no_pair_leaves_its_run(clips, tmp_path):
    pack(clips / "whole.mp4", tmp_path / "pack", PackSettings(max_frames=45, run=20, processes=1))
    numbers = np.load(tmp_path / "pack" / "shards" / "00000.npy")["number"].tolist()
    assert numbers == [*range(22), *range(48, 70)]
    pairs = PackSource(tmp_path / "pack", GapSettings(frames=(10, 15))).clips(0, 60, np.random.default_rng(0))
    firsts = {pair.frames[0] for pair in pairs}
    assert firsts == {*range(7), *range(48, 55)}
    assert {pair.frames[1] - pair.frames[0] for pair in pairs} == set(range(10, 16))


def test_a_gap_that_the_pack_cannot_give_is_an_error_that_names_the_settings(clips, tmp_path):
    pack(clips / "whole.mp4", tmp_path / "pack", PackSettings(every=40, processes=1))
    with pytest.raises(SampleError, match=r"no two frames 15-30 frames apart.*every, fps, max_frames") as caught:
        PackSource(tmp_path / "pack", GAP).clips(0, 5, np.random.default_rng(0))
    assert caught.value.always


def test_pillow_decodes_to_the_same_pixels_where_torchvision_does_not(packs, monkeypatch):
    from midway_hub.training.data.packs import jpeg_tar

    fast = draw(PackSource(packs["jpeg"], GAP), 1)
    monkeypatch.setattr(jpeg_tar, "_torchvision_decoder", lambda: None)
    for ours, theirs in zip(fast, draw(PackSource(packs["jpeg"], GAP), 1), strict=True):
        assert np.array_equal(ours.first, theirs.first)


def test_a_pack_source_is_a_pair_source_that_pickles(packs):
    source = PackSource(packs["jpeg"], GAP)
    assert isinstance(source, ClipSource)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint()
    assert len(copy) == 4


def test_fingerprints_tell_packs_apart(packs, tmp_path, clips):
    pack(clips, tmp_path / "other", PackSettings(jpeg_quality=91, processes=1))
    prints = [PackSource(path, GAP).fingerprint() for path in (packs["jpeg"], packs["h264"], tmp_path / "other")]
    assert len({fingerprint["hash"] for fingerprint in prints}) == 3


@pytest.mark.parametrize("form", FORMS)
def test_the_forecast_is_within_a_factor_of_two_in_frames_and_bytes(clips, packs, tmp_path, form):
    expected = forecast(clips, tmp_path / "new", PackSettings(form=form, processes=1))
    size = sum(path.stat().st_size for path in packs[form].rglob("*") if path.is_file())
    assert 0.5 < expected.bytes / size < 2
    assert 0.8 < expected.frames / 253 < 1.25
    assert not (tmp_path / "new").exists()
    assert "4 videos" in expected.text
    assert "pairs a second" in expected.text


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_forecast_holds_for_real_clips(sample_videos, tmp_path, form):
    settings = PackSettings(form=form, short_side=180, every=2, processes=1, max_rejected=1)
    expected = forecast(sample_videos, tmp_path / "pack", settings)
    report = pack(sample_videos, tmp_path / "pack", settings)
    assert 0.5 < expected.bytes / report.bytes < 2
    assert 0.5 < expected.frames / report.frames < 2
    assert 0.25 < expected.seconds / report.seconds < 4  # other processes may take the machine in between


def test_a_disk_without_room_is_refused_with_both_numbers(clips, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PackError, match=r"needs about \S+ GB more and .* has 1e-05 GB free; choose another disk"):
        pack(clips, tmp_path / "pack", PackSettings(processes=1))
    assert not (tmp_path / "pack" / "pack.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 2, "fps": 10}, "both thin frames out"),
        ({"max_frames": 50}, "less than one run of 90"),
        ({"form": "png"}, "'jpeg' or 'h264'"),
        ({"quality": 90}, "quality"),
        ({"short_side": 0}, "short_side"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        PackSettings(**changes)


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\x93NUMPY\x01\x00"])
def test_a_damaged_index_of_a_pack_is_named(clips, packs, tmp_path, content):
    folder = tmp_path / "pack"
    shutil.copytree(packs["jpeg"], folder)
    index = next((folder / "shards").glob("*.npy"))
    index.write_bytes(content)
    source = PackSource(folder, GapSettings(frames=(1, 2)))
    with pytest.raises(SampleError, match=rf"{index} is damaged .*run the command pack again"):
        draw(source, 1)


def test_a_pack_with_a_damaged_manifest_says_which_and_what_to_do(packs, tmp_path):
    folder = tmp_path / "pack"
    shutil.copytree(packs["jpeg"], folder)
    manifest = next((folder / "shards").glob("*.json"))
    for content in (b"", b"\0" * 10, b"[]"):
        manifest.write_bytes(content)
        with pytest.raises(PackError, match=rf"{manifest} is damaged .*run the command pack again"):
            PackSource(folder, GapSettings(frames=(1, 2)))
