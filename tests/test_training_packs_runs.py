"""Packing goes on where it was stopped, wherever that was, and makes what an undisturbed run makes."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from pack_clips import contents, die_at_seven, pack_in_process, processes_of, write_clips
from video_clips import packet_places, write_clip

from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.packs import PackError, PackSettings, PackSource, pack, verify
from midway_hub.training.data.settings import GapSettings

FORMS = ("jpeg", "h264")
GAP = GapSettings(frames=(15, 30))
ALONE = {"processes": 1}


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips") / "videos")


@pytest.fixture(scope="session")
def undisturbed(clips, tmp_path_factory) -> dict[str, Path]:
    """Packs made in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for form in FORMS:
        pack(clips, folder / form, PackSettings(form=form, **ALONE))
    return {form: folder / form for form in FORMS}


@pytest.fixture
def packed(undisturbed, tmp_path) -> dict[str, Path]:
    """Copies of them, to be damaged."""
    return {form: Path(shutil.copytree(path, tmp_path / form)) for form, path in undisturbed.items()}


@pytest.fixture
def damaged_clip(tmp_path) -> Path:
    """A folder of three clips, in one of which the data of frame 40 is overwritten."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_clip(folder / name, 60, options={"g": "20", "bf": "0", "x264-params": "scenecut=0:threads=1"})
    offset, size, _ = packet_places(folder / "b.mp4")[40]
    with (folder / "b.mp4").open("r+b") as file:
        file.seek(offset + 8)
        file.write(b"\xff" * (size - 8))
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_is_taken_up_and_gives_the_same_pack(clips, undisturbed, tmp_path, form):
    out = tmp_path / "pack"
    for frames in (31, 100):  # in the middle of the first and of the second video
        assert pack_in_process(clips, out, kill_after=frames, form=form, **ALONE).returncode == -9
    with pytest.raises(PackError, match="not finished: 3 of 4 shards are missing"):
        PackSource(out, GAP)
    report = pack(clips, out, PackSettings(form=form, **ALONE))
    assert (report.shards_kept, report.shards_made) == (1, 3)
    assert contents(out) == contents(undisturbed[form])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in Linux's /proc")
@pytest.mark.parametrize("form", FORMS)
def test_processes_of_a_killed_run_end_too_and_the_pack_is_the_same(clips, undisturbed, tmp_path, form):
    out = tmp_path / "pack"
    assert pack_in_process(clips, out, kill_after=60, form=form, processes=2).returncode == -9
    deadline = time.monotonic() + 20
    while (alive := processes_of(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive
    assert pack_in_process(clips, out, form=form, processes=2).returncode == 0
    assert contents(out) == contents(undisturbed[form])


def test_two_processes_make_what_one_makes(clips, undisturbed, tmp_path):
    done = []
    pack(clips, tmp_path / "pack", PackSettings(processes=2), progress=done.append)
    assert contents(tmp_path / "pack") == contents(undisturbed["jpeg"])
    assert (done[-1].files_done, done[-1].files_total, done[-1].frames) == (4, 4, 253)


def test_progress_grows_frame_by_frame(clips, tmp_path):
    seen = []
    pack(clips / "whole.mp4", tmp_path / "pack", PackSettings(**ALONE), progress=lambda done: seen.append(done.frames))
    assert seen == [*range(1, 71), 70]


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_an_error_and_the_run_can_go_on(clips, undisturbed, tmp_path, form):
    out = tmp_path / "pack"
    run = pack_in_process(clips, out, file_size=30_000, form=form, **ALONE)
    assert run.returncode == 1
    assert "could not be written: File too large. Finished shards are safe: make room, and run again" in run.stderr
    assert not (out / ".parts").exists()
    pack(clips, out, PackSettings(form=form, **ALONE))
    assert contents(out) == contents(undisturbed[form])


def test_a_finished_pack_is_checked_and_kept(clips, packed):
    report = pack(clips, packed["jpeg"], PackSettings(**ALONE))
    assert (report.shards_kept, report.shards_made, report.frames) == (4, 0, 253)


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_with_damage_inside_is_left_out_whole_and_named(damaged_clip, tmp_path, form):
    settings = PackSettings(form=form, max_rejected=0.5, **ALONE)
    report = pack(damaged_clip, tmp_path / "pack", settings)
    assert [(r.file, "frame 40 cannot be decoded" in r.reason) for r in report.rejected] == [("b.mp4", True)]
    assert (report.videos, report.frames) == (2, 120)
    source = PackSource(tmp_path / "pack", GAP)
    assert [source.clips(i, 1, np.random.default_rng(0))[0].name for i in range(len(source))] == ["a.mp4", "c.mp4"]
    assert source.rejected == list(report.rejected)
    assert verify(tmp_path / "pack").ok


def test_a_clip_that_is_left_out_leaves_nothing_in_a_shared_shard(damaged_clip, tmp_path, monkeypatch):
    from midway_hub.training.data.packs import planning

    monkeypatch.setattr(planning, "_SHARDS_AT_LEAST", 1)
    pack(damaged_clip, tmp_path / "pack", PackSettings(max_rejected=0.5, **ALONE))
    assert [path.name for path in (tmp_path / "pack" / "shards").glob("*.tar")] == ["00000.tar"]
    report = verify(tmp_path / "pack")  # compares the members of the tar file with the index
    assert report.ok, report.text
    assert report.frames == 120


def test_too_many_bad_clips_stop_the_run_and_allowing_them_goes_on(damaged_clip, tmp_path):
    with pytest.raises(
        PackError, match=r"1 of 3 videos cannot be read, more than max_rejected=0.05 .*\n  b.mp4: frame 40"
    ):
        pack(damaged_clip, tmp_path / "pack", PackSettings(**ALONE))
    assert pack(damaged_clip, tmp_path / "pack", PackSettings(max_rejected=0.4, **ALONE)).shards_kept == 1


def test_a_clip_of_one_frame_is_left_out_with_the_reason(tmp_path):
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "short.mp4", 1)
    write_clip(tmp_path / "videos" / "long.mp4", 30)
    report = pack(tmp_path / "videos", tmp_path / "pack", PackSettings(max_rejected=0.5, **ALONE))
    assert [r.reason for r in report.rejected] == ["a pair needs two frames, of its 1 these settings keep 1"]


def test_other_settings_are_refused_with_the_difference(clips, packed):
    with pytest.raises(PackError, match=r"jpeg_quality is 90 there and 80 now; short_side is 360 there and 64 now"):
        pack(clips, packed["jpeg"], PackSettings(jpeg_quality=80, short_side=64, **ALONE))


def test_other_videos_are_refused_with_their_names(clips, packed):
    with pytest.raises(PackError, match=r"3 videos are gone \(day/plain.mp4, trimmed.mp4, uneven.mkv\)"):
        pack(clips / "whole.mp4", packed["jpeg"], PackSettings(**ALONE))


def test_the_order_in_which_videos_are_given_does_not_matter_to_a_later_run(clips, tmp_path):
    paths = sorted(clips.glob("*.m*"))
    pack(paths, tmp_path / "pack", PackSettings(**ALONE))
    (tmp_path / "pack" / "shards" / "00001.json").unlink()
    before = contents(tmp_path / "pack")
    pack(paths[::-1], tmp_path / "pack", PackSettings(**ALONE))
    after = contents(tmp_path / "pack")
    assert before.items() < after.items()
    assert [v["name"] for v in json.loads((tmp_path / "pack/shards/00001.json").read_text())["videos"]] == [
        paths[1].name
    ]


def test_settings_of_the_other_form_do_not_matter(clips, packed):
    assert pack(clips, packed["jpeg"], PackSettings(crf=30, gop=9, **ALONE)).shards_made == 0


def test_two_runs_in_one_folder_are_refused(clips, packed):
    with FileLock(packed["jpeg"] / ".lock"), pytest.raises(PackError, match="another process packs into"):
        pack(clips, packed["jpeg"], PackSettings(**ALONE))


def test_a_pack_inside_the_searched_folder_is_refused(clips):
    with pytest.raises(PackError, match="which is searched for videos; choose another folder"):
        pack(clips, clips / "pack", PackSettings(**ALONE))


def test_a_folder_of_other_files_is_refused(clips, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PackError, match=r"is no pack and holds other files \(notes.txt\)"):
        pack(clips, tmp_path, PackSettings(**ALONE))


def test_a_video_that_vanishes_stops_the_run_instead_of_being_left_out(clips, tmp_path):
    videos = shutil.copytree(clips, tmp_path / "videos")

    def remove(_: object) -> None:
        (videos / "whole.mp4").unlink(missing_ok=True)

    with pytest.raises(PackError, match=r"whole.mp4 can no longer be read: .* bring it back and run again"):
        pack(videos, tmp_path / "pack", PackSettings(**ALONE), progress=remove)


def _bytes_changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    rows = len(data) // 2
    data[rows : rows + 2000] = bytes(value ^ 255 for value in data[rows : rows + 2000])
    path.write_bytes(data)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])


STORED = {"jpeg": "shards/00003.tar", "h264": "videos/whole.mp4.mp4"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("damage", "found", "read"),
    [
        (_cut_off, r"has \d+ bytes of \d+", r"is cut off: the file ends after \d+ bytes, wanted \d+"),
        (_bytes_changed, "has another sha256", "has changed since it was packed"),
    ],
)
def test_damage_is_found_by_verify_and_by_reading_and_packing_again_mends_it(
    clips, undisturbed, packed, form, damage, found, read
):
    out = packed[form]
    damage(out / STORED[form])
    report = verify(out)
    assert list(report.problems) == [3]
    assert STORED[form] in report.problems[3][0]
    assert re.search(found, report.text)
    with pytest.raises(SampleError, match=rf"{STORED[form]}: frame \d+ of whole.mp4 {read}.*packing again") as caught:
        PackSource(out, GAP).clips(3, 60, np.random.default_rng(0))
    assert not caught.value.always
    assert pack(clips, out, PackSettings(form=form, **ALONE)).shards_made == 1
    assert contents(out) == contents(undisturbed[form])


def test_a_missing_shard_and_a_damaged_manifest_are_found(packed):
    (packed["jpeg"] / "shards" / "00001.json").unlink()
    (packed["jpeg"] / "shards" / "00002.json").write_text("{")
    (packed["jpeg"] / "shards" / "00003.npy").unlink()
    problems = verify(packed["jpeg"]).problems
    assert [problems[number][0].split(str(packed["jpeg"]))[0] for number in (1, 2)] == [
        "shard 1 is not finished: there is no ",
        "",
    ]
    assert problems[3] == ["shards/00003.npy is missing"]


def test_an_index_that_does_not_fit_its_tar_file_is_found(packed):
    path = packed["jpeg"] / "shards" / "00000.json"
    manifest = json.loads(path.read_text())
    manifest["videos"][0]["name"] = "day/other.mp4"
    path.write_text(json.dumps(manifest))
    assert verify(packed["jpeg"]).problems == {0: ["the members of shards/00000.tar are not those of its index"]}


def test_a_folder_that_is_no_pack_is_named(tmp_path):
    with pytest.raises(PackError, match=r"is no pack: it has no pack\.json"):
        PackSource(tmp_path, GAP)
    (tmp_path / "pack.json").write_text("{}")
    with pytest.raises(PackError, match=r"pack.json is damaged \(layout Field required\)"):
        verify(tmp_path)


def test_a_process_that_dies_is_reported_with_what_it_worked_on(tmp_path):
    from midway_hub.training.data.packs.workers import run_tasks

    with pytest.raises(PackError, match=r"worked on 7 died with exit code -9 .* run again to go on"):
        list(run_tasks(die_at_seven, [7, 8], processes=2))
