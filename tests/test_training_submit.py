"""Jobs of a cluster: what they ask for, what becomes of them, and one that really runs."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest
from lightning_fabric.plugins.environments import SLURMEnvironment

from midway_hub.training.submit import Resources, SubmitError, executor_parameters, sbatch_script, submit

pytest.importorskip("submitit")

BIG = Resources(
    nodes=2, processes=8, cpus=12, hours=10, memory_gb=400, partition="gpu", account="lab", save_seconds=240
)


def flags(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.split("=", 1) if "=" in line else (line, True) for line in lines)


def run_script(script, folder, *, exit_code):
    """Run a batch script with an `srun` that leaves with a code, and return its code and what was requeued."""
    for name, body in (("srun", f"exit {exit_code}"), ("scontrol", f'echo "$@" >> {folder}/requeued')):
        command = folder / name
        command.write_text(f"#!/bin/sh\n{body}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    (folder / "job.sh").write_text(script)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    done = subprocess.run(["bash", str(folder / "job.sh")], env=environment, capture_output=True, text=True)
    requeued = folder / "requeued"
    return done.returncode, requeued.read_text().strip() if requeued.exists() else None


def test_script_asks_for_what_was_given(tmp_path):
    asked = flags(sbatch_script(tmp_path / "run", BIG))
    wanted = {
        "nodes": "2",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "12",
        "time": "600",
        "mem": "400GB",
        "partition": "gpu",
        "account": "lab",
        "job-name": "midway",
        "signal": "USR1@240",
        "requeue": True,
    }
    assert {name: asked.get(name) for name in wanted} == wanted
    assert "qos" not in asked
    assert str(tmp_path / "run" / "slurm") in asked["output"]


def test_script_without_gpus_asks_for_none(tmp_path):
    assert "gpus-per-node" not in flags(sbatch_script(tmp_path, Resources(gpus=False)))


def test_tasks_are_what_fabric_wants_to_see(tmp_path, monkeypatch):
    asked = flags(sbatch_script(tmp_path, BIG))
    monkeypatch.setenv("SLURM_NTASKS", str(int(asked["nodes"]) * int(asked["ntasks-per-node"])))
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", asked["ntasks-per-node"])
    monkeypatch.setenv("SLURM_NNODES", asked["nodes"])
    monkeypatch.setenv("SLURM_JOB_NAME", asked["job-name"])
    assert SLURMEnvironment.detect()
    environment = SLURMEnvironment()
    environment.validate_settings(num_devices=BIG.processes, num_nodes=BIG.nodes)
    assert environment.world_size() == 16
    with pytest.raises(ValueError, match="does not match"):
        environment.validate_settings(num_devices=4, num_nodes=2)


@pytest.mark.parametrize(("code", "requeued"), [(75, "requeue 4711"), (0, None), (1, None)])
def test_only_a_run_that_saved_itself_is_queued_again(tmp_path, code, requeued):
    script = sbatch_script(tmp_path / "run", Resources(gpus=False))
    assert run_script(script, tmp_path, exit_code=code) == (code, requeued)


def test_folder_with_spaces_is_quoted(tmp_path):
    script = sbatch_script(tmp_path / "my run", Resources(gpus=False))
    assert run_script(script, tmp_path, exit_code=0) == (0, None)
    assert "'" in flags(script)["output"]


def test_local_job_runs_the_command(tmp_path):
    # Two processes: on this machine one task starts the other itself.
    resources = Resources(gpus=False, processes=2, hours=0.2)
    job = submit(["--help"], run_dir=tmp_path / "run", resources=resources, cluster="local")
    deadline = time.monotonic() + 60
    while not job.done() and time.monotonic() < deadline:
        time.sleep(0.1)
    said = job.paths.stdout.read_text()
    assert "python -m midway_hub.training" in said
    assert str(job.paths.stdout).startswith(str(tmp_path / "run" / "slurm"))
    assert len(list(job.paths.folder.glob("*_log.out"))) == 1


@pytest.mark.slow
def test_local_job_saves_itself_before_its_time_is_up(tmp_path):
    run = tmp_path / "run"
    command = ["pretrain", "smoke", "steps=100000", "data.workers=0", "--run-dir", str(run)]
    resources = Resources(gpus=False, hours=1 / 60, save_seconds=30)  # a minute, the shortest there is
    job = submit(command, run_dir=run, resources=resources, cluster="local")
    deadline = time.monotonic() + 100
    while not job.done() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted", job.paths.stderr.read_text()
    assert list((run / "checkpoints").glob("step_*"))


def test_signal_reaches_the_training_itself(tmp_path):
    script = (
        "import os, sys\n"
        "from midway_hub.training.submit import TrainingJob\n"
        "before = os.getpid()\n"
        "print(before, flush=True)\n"
        "sys.executable = sys.argv[1]\n"
        "TrainingJob(('pretrain', 'smoke'))()\n"
    )
    shell = tmp_path / "python"
    shell.write_text('#!/bin/sh\necho "$$ $@"\nexit 75\n')
    shell.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script, str(shell)], capture_output=True, text=True)
    before, after = done.stdout.splitlines()
    assert after == f"{before} -u -m midway_hub.training pretrain smoke"  # the same process, another program
    assert done.returncode == 75


def test_no_slurm_here_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmitError, match=r"no Slurm on this machine.*login node.*--dry-run.*--cluster local"):
        submit(["pretrain", "smoke"], run_dir=tmp_path / "run", resources=Resources())


def test_submitit_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SubmitError, match=r"needs submitit: pip install 'midway-hub\[slurm\]'"):
        sbatch_script(tmp_path, Resources())


def test_unknown_cluster_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cluster must be 'slurm' or 'local', got 'cloud'"):
        submit(["pretrain"], run_dir=tmp_path, resources=Resources(), cluster="cloud")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "nodes of a job must be at least 1, got 0"),
        ({"processes": 0}, "processes of a job must be at least 1, got 0"),
        ({"hours": 0.01}, "save_seconds must lie between 0 and the job's 36 s, got 180"),
    ],
)
def test_impossible_resources_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Resources(**changes)


def test_parameters_leave_out_what_was_not_asked_for():
    assert None not in executor_parameters(Resources()).values()
