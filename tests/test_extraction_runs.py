"""Extraction over many sources: resuming, conflicts, failures, sharing among processes, being killed."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from safetensors.numpy import load_file
from test_extraction_features import SMALL, assert_same, make_video

from midway_hub.extraction import (
    OutputExistsError,
    StorageError,
    choose_device,
    extract_features,
    extract_motion,
    read_metadata,
)

NAMES = ["a.mp4", "b.mp4", "day/c.mp4"]


@pytest.fixture
def videos(tmp_path) -> Path:
    for seed, name in enumerate(NAMES):
        make_video(tmp_path / "videos" / name, frames=3, seed=seed)
    return tmp_path / "videos"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def outputs(*names: str) -> list[str]:
    return [f"{name}.safetensors" for name in names]


# -- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_what_is_finished_is_skipped_and_left_untouched(tiny_net, videos, tmp_path, format):
    first = extract_features(tiny_net, videos, tmp_path / "out", format=format)
    before = times(tmp_path / "out")
    second = extract_features(tiny_net, videos, tmp_path / "out", format=format, batch=1)
    assert [written.source.name for written in first.done] == NAMES
    assert second.done == []
    assert [written.output for written in second.skipped] == [written.output for written in first.done]
    assert times(tmp_path / "out") == before


def test_only_what_is_missing_is_made(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos, tmp_path / "out")
    (tmp_path / "out" / "b.mp4.safetensors").unlink()
    again = extract_features(tiny_net, videos, tmp_path / "out")
    assert [written.source.name for written in again.done] == ["b.mp4"]
    assert len(again.skipped) == 2


def test_the_same_weights_loaded_again_ask_for_the_same(videos, tmp_path):
    extract_features(make_tiny_net(), videos, tmp_path / "out")
    assert len(extract_features(make_tiny_net(), videos, tmp_path / "out").skipped) == 3


def test_an_output_made_otherwise_is_an_error_that_lists_what_differs_before_any_work(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos / "b.mp4", tmp_path / "out", every=2, layers=[5])
    with pytest.raises(OutputExistsError) as caught:
        extract_features(tiny_net, videos, tmp_path / "out", layers=[2], **SMALL)
    message = str(caught.value)
    assert "1 of 3 outputs exist and were made otherwise" in message
    assert "out/b.mp4.safetensors: every was 2, now 1; layers was [5], now [2]; processor.fit was 'pad'" in message
    assert "overwrite=True" in message
    assert files(tmp_path / "out") == outputs("b.mp4")


def test_motion_does_not_pass_for_features(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="kind was 'features', now 'motion'"):
        extract_motion(tiny_net, videos, tmp_path / "out")


def test_other_weights_are_another_request(videos, tmp_path):
    extract_features(make_tiny_net(), videos / "a.mp4", tmp_path / "out")
    changed = make_tiny_net()
    with torch.no_grad():
        changed.teacher.norm.bias[0] += 1
    with pytest.raises(OutputExistsError, match=r"network_sha256 was '[0-9a-f]{64}', now '[0-9a-f]{64}'"):
        extract_features(changed, videos / "a.mp4", tmp_path / "out")


def test_a_source_that_changed_is_another_request(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos, tmp_path / "out")
    os.utime(videos / "a.mp4", ns=(0, 12345))
    with pytest.raises(OutputExistsError, match=r"1 of 3 outputs .*\n.*a.mp4.safetensors: source was .*12345"):
        extract_features(tiny_net, videos, tmp_path / "out")


def test_overwriting_makes_anew_only_what_was_made_otherwise(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos, tmp_path / "out")
    before = times(tmp_path / "out")
    os.utime(videos / "a.mp4", ns=(0, 12345))
    result = extract_features(tiny_net, videos, tmp_path / "out", overwrite=True)
    after = times(tmp_path / "out")
    assert [written.source.name for written in result.done] == ["a.mp4"]
    assert [name for name in after if after[name] != before[name]] == outputs("a.mp4")


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_a_damaged_or_foreign_file_in_an_outputs_place_is_not_taken_for_it(tiny_net, videos, tmp_path, format):
    output = extract_features(tiny_net, videos / "a.mp4", tmp_path / "out", format=format).done[0].output
    whole = output.read_bytes()
    for wrong in (whole[:-9], b"", b"notes of somebody"):
        output.write_bytes(wrong)
        with pytest.raises(OutputExistsError, match="it is damaged, or no extracted file"):
            extract_features(tiny_net, videos / "a.mp4", tmp_path / "out", format=format)
        assert output.read_bytes() == wrong


# -- failures ------------------------------------------------------------------------------------------------------


def test_a_video_that_cannot_be_read_is_reported_and_the_others_go_on(tiny_net, videos, tmp_path):
    (videos / "b.mp4").write_bytes((videos / "b.mp4").read_bytes()[:300])
    result = extract_features(tiny_net, videos, tmp_path / "out")
    (failure,) = result.failed
    assert failure.source.name == "b.mp4"
    assert "b.mp4" in failure.reason
    assert [written.source.name for written in result.done] == ["a.mp4", "day/c.mp4"]
    assert files(tmp_path / "out") == outputs("a.mp4", "day/c.mp4")


def test_a_video_that_is_damaged_half_way_leaves_no_output(tiny_net, sample_videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    data = bytearray((sample_videos / "udacity_highway_720p.mp4").read_bytes())
    data[500_000:501_000] = bytes(1000)
    broken.write_bytes(data)
    (failure,) = extract_features(tiny_net, broken, tmp_path / "out", batch=2, **SMALL).failed
    assert "broken.mp4" in failure.reason
    assert not (tmp_path / "out").exists()


def test_of_a_video_that_is_cut_off_the_frames_before_the_cut_are_kept(tiny_net, sample_videos, tmp_path):
    source = sample_videos / "derived_truncated_faststart_udacity.mp4"
    (written,) = extract_features(tiny_net, source, tmp_path / "out", **SMALL).done
    assert written.count == 13
    assert written.note.startswith("only the first 13 frames can be read: the file is cut off")
    assert read_metadata(written.output)["note"] == written.note


def test_a_picture_that_is_no_picture_is_reported(tiny_net, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    (failure,) = extract_features(tiny_net, tmp_path / "photo.jpg", tmp_path / "out").failed
    assert "photo.jpg" in failure.reason
    assert "not an image" in failure.reason


def test_features_that_are_not_finite_are_never_stored(tiny_net, videos, tmp_path):
    with torch.no_grad():
        tiny_net.teacher.norm.bias[3] = torch.nan
    result = extract_features(tiny_net, videos, tmp_path / "out", keep=["cls"], batch=2)
    assert [failure.reason.split(";")[0] for failure in result.failed] == [
        "cls holds 2 values that are NaN or infinite in rows 0 to 1"
    ] * 3
    assert files(tmp_path / "out") == []


def test_a_disk_that_is_full_stops_the_run_and_keeps_what_is_finished(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos / "a.mp4", tmp_path / "out")
    before = content(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match=r"could not write to .*out: .*Finished files are whole"):
            extract_features(tiny_net, videos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(tmp_path / "out") == before
    assert len(extract_features(tiny_net, videos, tmp_path / "out").done) == 2


def test_a_file_where_the_output_folder_should_be_is_named(tiny_net, videos, tmp_path):
    (tmp_path / "out").write_text("a file")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(NotADirectoryError, match="must be a folder, and a file is in its place"):
            extract_features(tiny_net, videos, output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [12]}, r"layers \[12\] do not exist: the encoder has blocks 0 to 11"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ({"batch": 2.5}, "batch must be a whole number of at least 1, got 2.5"),
        ({"format": "hdf5"}, "format must be one of safetensors, npz, got 'hdf5'"),
        ({"output_format": "map"}, "output_format must be 'grid' or 'tokens', got 'map'"),
        ({"network": "both"}, "network must be 'student' or 'teacher', got 'both'"),
        ({"keep": ["patches"]}, r"keep must be a sequence of names out of last, cls, got \['patches'\]"),
        ({"keep": "cls"}, "keep must be a sequence of names out of last, cls, got 'cls'"),
        ({"keep": []}, "nothing would be stored: keep is empty and no layers are asked for"),
        ({"reader": "vlc"}, r"reader must be one of auto, .*pyav.*, got 'vlc'"),
        ({"rank": 2, "world_size": 2}, "rank must be between 0 and world_size - 1, got rank 2 of world_size 2"),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_is_made(tiny_net, videos, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        extract_features(tiny_net, videos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


def test_a_network_in_training_mode_is_refused(tiny_net, videos, tmp_path):
    with pytest.raises(ValueError, match=r"training mode, where results are random; call net.eval\(\) first"):
        extract_features(tiny_net.train(), videos, tmp_path / "out")


# -- several processes ---------------------------------------------------------------------------------------------


def test_two_processes_share_the_sources_and_make_the_same_files_as_one(tiny_net, videos, tmp_path):
    extract_features(tiny_net, videos, tmp_path / "one")
    shares = [extract_features(tiny_net, videos, tmp_path / "two", rank=rank, world_size=2) for rank in (1, 0)]
    assert [[written.source.name for written in share.done] for share in shares] == [["b.mp4"], ["a.mp4", "day/c.mp4"]]
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_more_processes_than_sources_leave_some_without_work(tiny_net, videos, tmp_path):
    result = extract_features(tiny_net, videos, tmp_path / "out", rank=3, world_size=4)
    assert (result.done, result.skipped, result.failed) == ([], [], [])


def test_the_share_is_read_from_the_environment(tiny_net, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert [written.source.name for written in extract_features(tiny_net, videos, tmp_path / "out").done] == ["b.mp4"]
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ValueError, match="environment variable WORLD_SIZE must be a whole number, got 'many'"):
        extract_features(tiny_net, videos, tmp_path / "out")


def test_a_device_is_checked_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'gpu' is unknown to torch"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda:0' is not available here; use 'cpu'"):
            choose_device("cuda:0")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_with_cuda_a_process_takes_the_gpu_of_its_local_rank(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count() - 1))
    assert choose_device() == torch.device("cuda", torch.cuda.device_count() - 1)


WORKER = """
import sys
import torch
from conftest import make_tiny_net
from midway_hub.extraction import extract_features
torch.set_num_threads(1)
result = extract_features(make_tiny_net(), sys.argv[1], sys.argv[2], batch=1)
print(len(result.done), "done", len(result.skipped), "skipped", len(result.failed), "failed")
"""


def worker(tmp_path: Path, *before: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a process that extracts `videos` to `out`."""
    (tmp_path / "worker.py").write_text(WORKER)
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, *before, str(tmp_path / "worker.py"), str(tmp_path / "videos"), str(tmp_path / "out")]
    return command, environment


@pytest.mark.slow
def test_torchrun_gives_every_process_its_share(tiny_net, videos, tmp_path):
    command, environment = worker(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert sorted(said.stdout.split("\n")[:2]) == ["1 done 0 skipped 0 failed", "2 done 0 skipped 0 failed"]
    extract_features(tiny_net, videos, tmp_path / "one")
    assert files(tmp_path / "out") == files(tmp_path / "one") == outputs(*NAMES)
    for name in outputs(*NAMES):
        assert_same(load_file(tmp_path / "out" / name), load_file(tmp_path / "one" / name))


@pytest.mark.slow
def test_killed_half_way_it_keeps_what_is_finished_and_the_next_run_does_the_rest(tmp_path):
    for seed in range(6):
        make_video(tmp_path / "videos" / f"{seed}.mp4", frames=40, seed=seed)
    command, environment = worker(tmp_path)
    with subprocess.Popen(command, env=environment) as process:
        while not list((tmp_path / "out").glob("*.safetensors")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    before = times(tmp_path / "out")
    finished = [name for name in before if name.endswith(".safetensors")]
    assert 1 <= len(finished) < 6

    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    after = times(tmp_path / "out")
    assert said == f"{6 - len(finished)} done {len(finished)} skipped 0 failed\n"
    assert sorted(after) == outputs(*(f"{seed}.mp4" for seed in range(6)))
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []


# -- long names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["safetensors", "npz"])
def test_names_too_long_for_an_output_are_shortened_and_found_again(tiny_net, videos, tmp_path, format):
    long = ["x" * 240 + ".mp4", "x" * 239 + "y.mp4", "走" * 80 + ".mp4", "day/" + "z" * 251 + ".mp4"]
    for name in long:
        shutil.copy(videos / "a.mp4", videos / name)
    first = extract_features(tiny_net, videos, tmp_path / "out", format=format)
    assert not first.failed
    assert {written.source.name for written in first.done} == {*NAMES, *long}
    made = files(tmp_path / "out")
    assert len(made) == len(NAMES) + len(long)
    assert all(written.output.exists() and written.output.suffix == f".{format}" for written in first.done)
    long_one = next(written.output for written in first.done if written.source.name == long[3])
    assert long_one.parent.name == "day"
    assert read_metadata(long_one)["source_name"] == f'["{long[3][4:]}"]'
    second = extract_features(tiny_net, videos, tmp_path / "out", format=format)
    assert (len(second.skipped), second.done, files(tmp_path / "out")) == (len(made), [], made)


def test_two_pictures_of_long_names_are_a_pair(tiny_net, tmp_path):
    paths = [tmp_path / (letter * 200 + ".png") for letter in "ab"]
    for path in paths:
        Image.new("RGB", (32, 32)).save(path)
    (written,) = extract_motion(tiny_net, paths, tmp_path / "out").done
    assert written.output.name.startswith("aaa")
    assert written.output.exists()
