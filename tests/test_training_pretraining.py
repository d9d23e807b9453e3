"""A pretraining run that is killed and goes on ends with the weights of one that was never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midway_hub import MidwayNetwork

STEPS = 12


def start(run_dir, workers, processes):
    options = (
        f"steps={STEPS}",
        "engine.log_every=1",
        "engine.checkpoint_every_steps=3",
        f"data.workers={workers}",
        f"engine.devices={processes}",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "midway_hub.training", "pretrain", "smoke", *options, "--run-dir", str(run_dir)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(run_dir, workers, processes):
    running = start(run_dir, workers, processes)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err


def kill_at_a_random_moment(run_dir, workers, processes):
    """Kill -9 every process of a run somewhere between its fourth and its last step."""
    running = start(run_dir, workers, processes)
    metrics, deadline = Path(run_dir) / "metrics.jsonl", time.monotonic() + 240
    wanted = random.randint(4, STEPS - 2)
    while time.monotonic() < deadline and running.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= wanted:
            break
        time.sleep(0.01)
    time.sleep(random.random() * 0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert running.returncode == -signal.SIGKILL


def last_weights(run_dir):
    return (run_dir / "checkpoints" / f"step_{STEPS}" / "network.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(workers, processes, tmp_path):
    finish(tmp_path / "whole", workers, processes)
    kill_at_a_random_moment(tmp_path / "killed", workers, processes)
    finish(tmp_path / "killed", workers, processes)
    assert last_weights(tmp_path / "killed") == last_weights(tmp_path / "whole")
    assert len(json.loads((tmp_path / "killed" / "run.json").read_text())["resumes"]) == 1
    assert MidwayNetwork.from_pretrained(tmp_path / "killed" / "export")
