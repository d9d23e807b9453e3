"""Run directories as tests of the training tools need them: small, written by hand in the engine's format."""

import json
import math
from pathlib import Path

import yaml

CONFIG = {
    "recipe": "paper/bdd_vits",
    "seed": 7,
    "steps": 100,
    "method": {"name": "midway", "head": {"prototypes": 256}},
    "data": {"visits_per_step": 4, "pairs_per_visit": 5},
    "engine": {"precision": "bf16"},
    "compat": {"clip_student_only": True, "lr_counts_repeats": False},
}
RUN = {
    "state": "finished",
    "steps": 100,
    "seed": 7,
    "world_size": 2,
    "devices": ["cpu (x86_64)", "cpu (x86_64)"],
    "versions": {"python": "3.11.9", "midway-hub": "0.1.0", "torch": "2.15.0"},
    "started": "2026-01-02T03:04:05+00:00",
    "heartbeat": {"time": "2026-01-02T04:04:05+00:00", "step": 100},
    "resumes": [{"time": "2026-01-02T03:30:00+00:00", "step": 40, "host": "node1"}],
    "incidents": [{"kind": "not finite", "step": 60, "time": "2026-01-02T03:40:00+00:00", "ranks": ["loss"]}],
}
DATA = {
    "fingerprint": {"kind": "videos", "items": 70, "hash": "abc123"},
    "rejected": [{"file": "a.mov", "reason": "too short: it has 3 frames"}],
}


def metrics(steps=100, every=10):
    """Lines as the engine logs them: falling losses, and a probe at the end."""
    lines = [
        {
            "step": step,
            "epoch": step // 50,
            "time": 1.7e9 + step,
            "loss": 8 * math.exp(-step / 50),
            "dino": 5.0 - step / 100,
            "dynamics_8": 1.5 - step / 200,
            "copy_error_8": 0.75,
            "learning_rate": step * 1e-5,
            "grad_norm": 2.0,
            "seconds_per_step": 0.5,
            "pairs_per_second": 40.0,
            "data_wait": 0.05,
        }
        for step in range(every, steps + 1, every)
    ]
    return [*lines, {"step": steps, "probe/coarse_flow/level_8/epe": 3.25, "probe/coarse_flow/zero/epe": 6.5}]


def write_run(folder: Path, *, config=CONFIG, run=RUN, data=DATA, lines=None) -> Path:
    """Write a run directory; None leaves a file out."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name, content in (("run.json", run), ("data.json", data)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    lines = metrics() if lines is None else lines
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
