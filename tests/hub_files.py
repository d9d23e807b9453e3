"""Small checkpoints, written by hand, for the tests of the hub."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def safetensors_bytes(seed: int = 0, *, values: int = 512, metadata: dict[str, str] | None = None) -> bytes:
    """Write a small safetensors file by hand: one float32 vector whose content depends on the seed."""
    header: dict[str, Any] = {"weight": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
    if metadata is not None:
        header["__metadata__"] = metadata
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + struct.pack(f"<{values}f", *range(seed, seed + values))


CONFIG = json.dumps({"model_type": "midway"}).encode()
WEIGHTS = "model.safetensors"
TINY = {"config.json": CONFIG, WEIGHTS: safetensors_bytes(1)}


def sharded(*, without: str = "") -> dict[str, bytes]:
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.dumps({"weight_map": {f"weight{i}": name for i, name in enumerate(names)}}).encode()
    files = {name: safetensors_bytes(i) for i, name in enumerate(names) if name != without}
    return {"config.json": CONFIG, "model.safetensors.index.json": index, **files}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
