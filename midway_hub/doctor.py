"""What this installation has, and what it would use: versions, devices, video readers, cache, bundled weights."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("midway-hub", "torch", "timm", "transformers", "huggingface-hub", "safetensors", "numpy", "pillow", "requests"),
    *("av", "decord", "torchcodec", "torchvision", "lightning", "gradio"),
)
LITTLE_DISK = 2 * 2**30


def examine() -> dict[str, Any]:
    """Look at this installation.

    Returns:
        `versions`, `devices`, `readers`, `cache`, `would_use` and `advice` (a list of sentences; empty if all is well),
        made of plain data.
    """
    readers, cache, devices = _readers(), _cache(), _devices()
    return {
        "versions": {
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            **_versions(),
        },
        "devices": devices,
        "readers": readers,
        "cache": cache,
        "would_use": _would_use(),
        "advice": _advice(readers, cache, devices),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _devices() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu_threads": torch.get_num_threads(),
        "cuda": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
        "mps": torch.backends.mps.is_available(),
        "torch_built_for_cuda": torch.version.cuda,
    }


def _readers() -> dict[str, str]:
    from midway_hub.video import available_readers

    return {name: str(found) for name, found in available_readers().items()}


def _cache() -> dict[str, Any]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return {
        "folder": str(folder),
        "writable": os.access(existing, os.W_OK),
        "free_gib": round(shutil.disk_usage(existing).free / 2**30, 1),
        "endpoint": constants.ENDPOINT,
        "offline": bool(constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE")),
    }


def _would_use() -> dict[str, Any]:
    from midway_hub.app.demo import sample_clip
    from midway_hub.extraction import choose_device
    from midway_hub.registry import DEFAULT_MODEL
    from midway_hub.video import open_video

    with open_video(sample_clip()) as reader:
        name = reader.name
    return {"device": str(choose_device()), "reader_for_the_sample_clip": name, "demo_model": DEFAULT_MODEL}


def _advice(readers: dict[str, str], cache: dict[str, Any], devices: dict[str, Any]) -> list[str]:
    advice = []
    if "pyav" in readers and not readers["pyav"][:1].isdigit():
        advice.append(f"PyAV cannot be used ({readers['pyav']}); reinstall it: pip install --force-reinstall av")
    if not cache["writable"]:
        advice.append(f"the cache {cache['folder']} cannot be written; set HF_HOME to a folder that can")
    if cache["free_gib"] * 2**30 < LITTLE_DISK:
        advice.append(f"{cache['free_gib']} GiB are free for the cache; the largest checkpoint takes about 2 GiB")
    if cache["offline"]:
        advice.append("offline by environment variable: only cached and bundled checkpoints load")
    if devices["torch_built_for_cuda"] and not devices["cuda"] and shutil.which("nvidia-smi"):
        advice.append("an NVIDIA driver is installed but torch sees no GPU; compare its version with torch's CUDA")
    return advice
