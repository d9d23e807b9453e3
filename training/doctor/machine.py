"""What this machine has to give to a run."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from midway_hub.training.data.packs.workers import usable_cores

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Machine:
    """This machine, as one process sees it.

    Attributes:
        device: Name of the training device.
        cores: CPU cores that this process may use.
        memory: Bytes of the device; of the machine where the device is the CPU; None if they cannot be told.
        free_disk: Bytes that are free where the run directory is to be.
    """

    device: str
    cores: int
    memory: int | None
    free_disk: int


def describe_machine(device: torch.device, run_dir: str | Path = ".") -> Machine:
    """Look at cores, memory and disk.

    Args:
        device: Where the network is to be trained.
        run_dir: Where checkpoints are to be written; it need not exist yet.
    """
    path = Path(run_dir).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Machine(name, usable_cores(), _memory(device), shutil.disk_usage(there).free)


def peak_memory(device: torch.device) -> int:
    """Return the bytes that this process took at its worst: on a GPU allocated by torch, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _CGROUP:
        text = file.read_text(encoding="utf-8").strip() if file.is_file() else "max"
        limits += [int(text)] if text.isdigit() else []
    return min(limits)
