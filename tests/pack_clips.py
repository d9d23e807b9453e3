"""Folders of small clips to pack, and packing them in processes that are killed or run out of disk."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from video_clips import trimmed_copy, write_clip

LONG_GOP = {"g": "250", "bf": "2", "x264-params": "scenecut=0:threads=1"}
UNEVEN = np.cumsum([1 + (i % 5 == 0) * 3 + (i % 7 == 0) for i in range(60)]).tolist()


def write_clips(folder: Path) -> Path:
    """Four clips whose frames spell their number; of `trimmed.mp4` an edit list hides the first 17."""
    (folder / "day").mkdir(parents=True)
    write_clip(folder / "day" / "plain.mp4", 70, options=LONG_GOP)
    write_clip(folder / "uneven.mkv", 60, options=LONG_GOP, times=UNEVEN)
    whole = write_clip(folder / "whole.mp4", 70, options=LONG_GOP)
    trimmed_copy(whole, folder / "trimmed.mp4", 17)
    return folder


def contents(pack: Path) -> dict[str, str]:
    """sha256 of every file of a pack by name, but for its lock."""
    files = (path for path in pack.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(pack).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


_MARK = "MIDWAY_HUB_PACK_TEST"
_JOB = """
import json, os, resource, signal, sys
from midway_hub.training.data.packs import PackSettings, pack

if __name__ == "__main__":
    job = json.loads(sys.argv[1])

    def progress(done):
        if job["file_size"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], resource.RLIM_INFINITY))
        if job["kill_after"] and done.frames >= job["kill_after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    pack(job["videos"], job["out"], PackSettings(**job["settings"]), progress=progress)
"""


def pack_in_process(
    videos: Path, out: Path, *, kill_after: int = 0, file_size: int = 0, **settings: object
) -> subprocess.CompletedProcess:
    """Pack in another process, which dies after so many frames, or can write no larger files."""
    job = {"videos": str(videos), "out": str(out), "kill_after": kill_after, "file_size": file_size}
    script = out.parent / "pack_job.py"  # a file, so that its own processes can import it
    script.write_text(_JOB)
    command = [sys.executable, str(script), json.dumps({**job, "settings": settings})]
    environment = os.environ | {_MARK: str(out)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def processes_of(out: Path) -> list[Path]:
    """What of `pack_in_process` still runs, the processes that it started included (Linux)."""
    mark = f"{_MARK}={out}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is somebody else's
            found += [path] if mark in path.read_bytes() else []
    return found


def die_at_seven(task: int) -> Iterator[int]:
    """A task for `run_tasks`."""
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    yield task
