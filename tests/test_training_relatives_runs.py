"""Every method in processes of its own: killed and gone on with, and shared by two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from midway_hub.training.methods import METHODS

pytestmark = pytest.mark.slow
NAMES = sorted(METHODS)
ROOT = Path(__file__).resolve().parents[1]
TINY = (
    *("model.embed_dim=48", "model.depth=3", "model.num_heads=4", "model.levels=[1]", "model.motion_dim=16"),
    *("data.visits_per_step=2", "data.pairs_per_visit=2", "data.world.size=[48,64]"),
    *("data.world.textures.tiles=4", "data.world.textures.tile_size=64", "engine.log_every=1", "engine.progress=false"),
)
OWN = {"densecl": ["method.queue=64"]}
MEET_IN_A_BATCH = ("dora", "flowe", "poodle", "cmp", "tcore")
"""Methods whose samples meet within a micro-batch (BatchNorm, thresholds, masks), so that two are not one."""


def start(name, run_dir, *overrides):
    command = [sys.executable, "-m", "midway_hub.training", "pretrain", f"small/{name}", *TINY, *OWN.get(name, ())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *overrides, "--run-dir", str(run_dir)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said[-2000:]


def weights(run_dir, step):
    return load_file(run_dir / "checkpoints" / f"step_{step}" / "network.safetensors")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(name, workers, tmp_path):
    options = ["steps=8", "engine.checkpoint_every_steps=2", f"data.workers={workers}"]
    finish(start(name, tmp_path / "whole", *options))
    killed = start(name, tmp_path / "killed", *options)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "step_4").is_dir():
        assert killed.poll() is None or (tmp_path / "killed" / "export").exists()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finish(start(name, tmp_path / "killed", *options))
    whole, again = weights(tmp_path / "whole", 8), weights(tmp_path / "killed", 8)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MEET_IN_A_BATCH])
def test_two_processes_learn_what_one_does(name, tmp_path):
    own = {"croco": ["method.mask_ratio=0.5"]}.get(name, [])
    options = ["steps=3", "method.warmup_epochs=0", "data.workers=0", *own]
    finish(start(name, tmp_path / "one", *options))
    finish(start(name, tmp_path / "two", *options, "engine.devices=2"))
    one, two = weights(tmp_path / "one", 3), weights(tmp_path / "two", 3)
    states = [key for key in one if any(word in key for word in ("centre", "queue"))]
    assert states or name in ("croco", "dynamo_window")
    for key in states:
        torch.testing.assert_close(one[key].float(), two[key].float(), rtol=5e-2, atol=5e-3)
