"""What an output was made from and how, so that a later run can tell whether it would make the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from midway_hub.extraction.sources import Source
from midway_hub.extraction.spool import read_metadata
from midway_hub.models.network import MidwayNetwork

_NOT_IN_SHAPES = ("num_heads", "midway_heads", "backward_heads", "predictor_heads")


def network_digest(net: MidwayNetwork) -> str:
    """Hash what a network computes with: its weights as they are in memory, and how they are cut into heads.

    Args:
        net: The network, on any device.

    Returns:
        Hexadecimal sha256.
    """
    numbers = [getattr(net.config, name) for name in _NOT_IN_SHAPES]
    if net.config.flow_head and net.config.flow_head["kind"] == "correlation":
        numbers.append(net.config.flow_head)
    digest = hashlib.sha256(json.dumps(numbers).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_source(source: Source) -> list[dict[str, int]]:
    """Note size and time stamp of a source's files: when one changes, what is made from it may change."""
    return [{"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for stat in map(Path.stat, source.paths)]


def fingerprint(request: Mapping[str, Any]) -> str:
    """Hash a request; equal requests give equal outputs."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def as_metadata(request: Mapping[str, Any], **more: Any) -> dict[str, str]:
    """Write a request, its fingerprint and further facts as text by name; what is not text already becomes JSON."""
    facts = {**request, **more, "fingerprint": fingerprint(request), "request": dict(request)}
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


def differences(output: Path, request: Mapping[str, Any]) -> list[str]:
    """Say in what an existing output differs from what is asked for now.

    Args:
        output: The existing file.
        request: What is asked for.

    Returns:
        One phrase per difference; none if the file is whole and was made by the same request.
    """
    try:
        held = read_metadata(output)
        if held.get("fingerprint") == fingerprint(request):
            return []
        before = _flat(json.loads(held["request"]))
    except (ValueError, KeyError) as error:
        return [f"it is damaged, or no extracted file ({error})"]
    now = _flat(json.loads(json.dumps(request)))
    return [
        f"{name} was {before.get(name, 'unset')!r}, now {now.get(name, 'unset')!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, "unset") != now.get(name, "unset")
    ]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested objects into one, names joined by dots, so that differences show at their innermost name."""
    if not isinstance(value, dict):
        return {name: value}
    flat = {}
    for key, part in value.items():
        flat.update(_flat(part, f"{name}.{key}" if name else key))
    return flat
