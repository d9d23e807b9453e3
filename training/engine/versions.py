"""What a run runs on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("midway-hub", "torch", "lightning-fabric", "numpy", "transformers", "timm", "safetensors")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and packages, and the commit where the package runs from a clone."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["commit"] = _commit(Path(__file__))
    return found


def device_name(device: torch.device) -> str:
    """Return what a device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def _commit(file: Path) -> str | None:
    """Return the commit, with `-dirty` if files differ from it; None where git does not follow `file`."""
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        return _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(file.parent), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=20,
    )
    return done.stdout.strip()
