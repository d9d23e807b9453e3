"""Runs that are killed, stopped, damaged or out of disk, in real processes: they go on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_job import Job, Started, command, no_process_stays, run, wait_for_step  # noqa: F401

ENGINE = {"checkpoint_every_steps": 4, "log_every": 3, "heartbeat_seconds": 1e-6}


def job_in(folder: Path, **changes) -> Job:
    engine = {**ENGINE, **changes.pop("engine", {})}
    return Job(str(folder), **{"steps": 30, "engine": engine, **changes})


def whole_run(folder: Path, size: int = 1, **changes) -> dict:
    """Return the final state of a run that nobody disturbed."""
    job = job_in(folder / "whole", **changes)
    started = Started(job, size)
    assert started.wait() == [0] * size, started.said()
    return final_state(job)


def final_state(job: Job) -> dict:
    """Return the sha256 of each file of the last checkpoint: weights, optimizer, random states, counts."""
    return json.loads((job.last_checkpoint / "manifest.json").read_text())["files"]


def logged(job: Job) -> list[dict]:
    """Return the metrics of a run without what the clock says."""
    clock = {"time", "pairs_per_second", "seconds_per_step", "data_wait"}
    return [{name: value for name, value in line.items() if name not in clock} for line in job.metrics()]


def is_alive(pid: int) -> bool:
    return (
        subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()[:1]
        not in "Z"
    )


@pytest.mark.parametrize(
    ("size", "workers"),
    [(1, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 2), (2, 0), (2, 2)))],
)
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path, size, workers):
    wanted = whole_run(tmp_path, size, workers=workers)
    job = job_in(tmp_path / "killed", workers=workers, seconds_per_step=0.02)
    moments = random.Random(os.getpid())
    for step in (3, 11, 20):
        started = Started(job, size)
        wait_for_step(tmp_path / "killed", step)
        time.sleep(moments.uniform(0, 0.1))
        started.signal(signal.SIGKILL)
        assert started.wait() == [-signal.SIGKILL] * size
    assert Started(job, size).wait() == [0] * size
    assert final_state(job) == wanted
    assert len(job.record()["resumes"]) == 3


@pytest.mark.slow
def test_a_killed_run_logs_every_step_once_and_the_same_values(tmp_path):
    whole_run(tmp_path)
    job = job_in(tmp_path / "killed", kill_at_step=14)
    assert Started(job).wait() == [-signal.SIGKILL]
    assert Started(replace(job, kill_at_step=None)).wait() == [0]
    assert logged(job) == logged(job_in(tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_saves_and_exits_with_75_and_the_run_goes_on_exactly(tmp_path, number):
    wanted = whole_run(tmp_path)
    job = job_in(tmp_path / "stopped", seconds_per_step=0.02, engine={"checkpoint_every_steps": None})
    started = Started(job)
    wait_for_step(tmp_path / "stopped", 5)
    started.signal(number)
    assert started.wait() == [75]
    assert job.record()["state"] == "interrupted"
    step = job.record()["heartbeat"]["step"]
    assert (tmp_path / f"stopped/checkpoints/step_{step}/manifest.json").exists()
    assert Started(replace(job, seconds_per_step=0)).wait() == [0]
    assert final_state(job) == wanted
    assert [resume["step"] for resume in job.record()["resumes"]] == [step]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    job = job_in(tmp_path / "stopped", seconds_per_step=0.02, engine={"checkpoint_every_steps": None})
    started = Started(job, 2)
    wait_for_step(tmp_path / "stopped", 3)
    started.signal(signal.SIGTERM, rank=1)
    assert started.wait() == [75, 0]
    assert Started(job, 2).wait() == [0, 0]
    assert final_state(job) == whole_run(tmp_path, 2)


def test_a_second_signal_ends_at_once(tmp_path):
    job = job_in(tmp_path / "stopped", seconds_per_step=5.0)
    started = Started(job)
    wait_for_step(tmp_path / "stopped", 0)
    started.signal(signal.SIGTERM)
    time.sleep(0.3)
    started.signal(signal.SIGTERM)
    assert started.wait(4) == [128 + signal.SIGTERM]


@pytest.mark.parametrize("file", [6, pytest.param(8, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_killed_while_writing_a_checkpoint_goes_on_from_the_one_before(tmp_path, file):
    wanted = whole_run(tmp_path)
    job = job_in(tmp_path / "killed", kill_writing_checkpoint=file)
    assert Started(job).wait() == [-signal.SIGKILL]
    assert (tmp_path / "killed/checkpoints/.step_8.partial").exists()
    assert Started(replace(job, kill_writing_checkpoint=None)).wait() == [0]
    assert final_state(job) == wanted
    assert [resume["step"] for resume in job.record()["resumes"]] == [4]
    assert not list((tmp_path / "killed/checkpoints").glob(".*"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "no manifest"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage, caplog):
    job = job_in(tmp_path / "run", steps=8)
    run(job)
    wanted = final_state(job)
    last = tmp_path / "run/checkpoints/step_8"
    file = last / ("manifest.json" if damage == "no manifest" else "network.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-100] if damage == "truncated" else content)
    if damage.startswith(("missing", "no")):
        file.unlink()
    outcome, _ = run(job)
    assert outcome.step == 8
    assert final_state(job) == wanted
    (incident,) = job.record()["incidents"]
    assert incident["kind"] == "damaged checkpoint"
    assert incident["went_on_from"] == 4
    assert "step_8" in caplog.text
    assert "falling back" in caplog.text
    assert (tmp_path / "run/checkpoints/step_8.damaged").is_dir()


def test_a_run_without_a_whole_checkpoint_does_not_silently_start_again(tmp_path):
    job = job_in(tmp_path / "run", steps=4)
    run(job)
    (tmp_path / "run/checkpoints/step_4/optimizer.pt").write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"no checkpoint in .* is whole: .*optimizer\.pt is damaged: 0 bytes"):
        run(job)


def test_a_checkpoint_runs_no_code_when_it_is_read(tmp_path):
    job = job_in(tmp_path / "run", steps=4)
    run(job)
    for file in (tmp_path / "run/checkpoints/step_4").glob("*.pt"):
        torch.load(file, weights_only=True)
    assert {file.suffix for file in (tmp_path / "run/checkpoints/step_4").iterdir()} == {".pt", ".json", ".safetensors"}


def test_a_checkpoint_of_another_recipe_is_refused_key_by_key(tmp_path):
    run(job_in(tmp_path / "small", steps=4, width=8))
    run(job_in(tmp_path / "run", steps=4))
    checkpoints = tmp_path / "run/checkpoints"
    (checkpoints / "step_4").rename(tmp_path / "away")
    (tmp_path / "small/checkpoints/step_4").rename(checkpoints / "step_4")
    with pytest.raises(ValueError, match=r"step_4 holds a run of another configuration(.|\n)*model.width: 8 -> 16"):
        run(job_in(tmp_path / "run", steps=4))


def test_a_file_size_limit_keeps_the_last_good_checkpoint_and_says_what_to_do(tmp_path):
    run(job_in(tmp_path / "small", steps=4, width=400))
    size = (tmp_path / "small/checkpoints/step_4/network.safetensors").stat().st_size
    job = job_in(tmp_path / "run", steps=8, width=400, kill_at_step=5)
    assert Started(job).wait() == [-signal.SIGKILL]
    started = Started(replace(job, kill_at_step=None, file_size_limit=size // 2))
    assert started.wait() == [1]
    assert "MiB free. Free space there" in started.said()
    assert job.names("checkpoints") == {"step_4"}
    assert job.record()["state"] == "failed"
    assert "DiskFullError" in job.record()["error"]
    assert Started(replace(job, kill_at_step=None)).wait() == [0]


def test_a_full_disk_keeps_the_last_good_checkpoint_and_the_run_goes_on_with_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        job = job_in(disk / "run", steps=12, width=3000, engine={"keep_last": 5})
        started = Started(job)
        assert started.wait() == [1]
        assert "No space left on device" in started.said()
        assert job.names("checkpoints") == {"step_4"}
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert Started(job).wait() == [0]
        assert [resume["step"] for resume in job.record()["resumes"]] == [4]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_when_a_process_dies_the_other_one_ends_with_an_error(tmp_path):
    job = job_in(tmp_path / "run", kill_at_step=6, kill_rank=1, engine={"process_timeout_minutes": 0.2})
    started = Started(job, 2)
    survivor, killed = started.wait(20)
    assert killed == -signal.SIGKILL
    assert survivor == 1
    assert job.record()["state"] == "failed"


@pytest.mark.slow
def test_when_a_process_hangs_the_other_one_gives_up_after_the_timeout(tmp_path):
    job = job_in(tmp_path / "run", seconds_per_step=0.02, engine={"process_timeout_minutes": 0.05})
    started = Started(job, 2)
    wait_for_step(tmp_path / "run", 3)
    started.signal(signal.SIGSTOP, rank=1)
    started.processes[0].join(20)
    assert started.processes[0].exitcode == 1
    started.signal(signal.SIGKILL, rank=1)
    assert job.record()["state"] == "failed"


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_the_same_samples(tmp_path, caplog):
    whole = job_in(tmp_path / "whole", dropout=0.0)
    run(whole)
    job = job_in(tmp_path / "run", dropout=0.0, kill_at_step=13)
    assert Started(job, 2).wait()[0] == -signal.SIGKILL
    run(replace(job, kill_at_step=None))
    assert "1 processes go on from a checkpoint of 2" in caplog.text
    for name, value in whole.weights().items():
        torch.testing.assert_close(job.weights()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]])
def test_two_processes_started_by_torchrun_or_by_the_command_itself_train_the_same(tmp_path, launcher):
    wanted = whole_run(tmp_path, 2)
    job = job_in(tmp_path / "run", engine={} if launcher else {"devices": 2})
    subprocess.run([sys.executable, *launcher, *command(job)], check=True, timeout=120)
    assert final_state(job) == wanted


@pytest.mark.slow
def test_a_signal_to_the_command_stops_the_processes_it_started_and_exits_with_75(tmp_path):
    job = job_in(tmp_path / "run", seconds_per_step=0.05, engine={"devices": 2})
    process = subprocess.Popen([sys.executable, *command(job)])
    wait_for_step(tmp_path / "run", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert job.record()["state"] == "interrupted"


@pytest.mark.slow
def test_loader_workers_end_with_a_killed_run_however_they_were_started(tmp_path):
    job = job_in(tmp_path / "run", workers=1, worker_method="forkserver", kill_at_step=2)
    assert Started(job).wait() == [-signal.SIGKILL]
    (worker,) = (int(path.name.removeprefix("worker_")) for path in job.folder.glob("worker_*"))
    for _ in range(100):
        if not is_alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker was still there 10 s after its training process was killed")
