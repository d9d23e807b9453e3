"""Does a checkpoint do here what it did where it was made: checksums, keys, finite weights, golden outputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from midway_hub.models.network import MidwayNetwork

GOLDEN = "golden.safetensors"
SIZES = ((224, 224), (96, 160))
RTOL, ATOL = 1e-3, 1e-4


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        passed: Whether it is as it should be; None if there was nothing to compare with.
        detail: What was seen.
    """

    name: str
    passed: bool | None
    detail: str


def named_input(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal float32 noise that depends on its name and shape alone, on any machine."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(size=shape)
    return torch.from_numpy(noise.astype("float32"))


@torch.no_grad()
def golden_outputs(net: MidwayNetwork) -> dict[str, Tensor]:
    """Compute a few small outputs on named inputs, at the native and at another size.

    Args:
        net: A network in float32.

    Returns:
        CLS tokens (1, D) and the first and last patch (1, 2, D) per size; latents (1, M, Dm) and predictions per level;
        flow (1, 2, 4, 4) and logits (1, K, 4, 4) of the heads that there are, means over a sixteenth of the frame.
    """
    outputs = {}
    for height, width in SIZES:
        size = f"{height}x{width}"
        source, target = (named_input(f"{name}_{size}", (1, 3, height, width)) for name in ("source", "target"))
        features = net.encode(source, output_format="tokens")
        outputs[f"{size}.cls"] = features.cls
        outputs[f"{size}.patches"] = features.last[:, [1, -1]]
        if net.config.dynamics:
            motion = net.infer_motion(source, target)
            for level, latents, predicted in zip(motion.levels, motion.latents, motion.predicted, strict=True):
                outputs[f"{size}.level{level}.latents"] = latents
                outputs[f"{size}.level{level}.predicted"] = predicted[:, [0, 1, -1]]
        if net.has_flow_head:
            outputs[f"{size}.flow"] = F.adaptive_avg_pool2d(net.flow(source, target).flow, 4)
        if net.has_segmentation_head:
            outputs[f"{size}.logits"] = F.adaptive_avg_pool2d(net.segment(source).logits, 4)
    return {name: output.contiguous() for name, output in outputs.items()}


def save_golden(net: MidwayNetwork, directory: Path) -> None:
    """Store the golden outputs of a float32 network beside its weights."""
    save_file(golden_outputs(net), directory / GOLDEN, metadata={"format": "pt"})


def verify(name_or_path: str | Path, **kwargs: Any) -> list[Check]:
    """Load a checkpoint and check it.

    Args:
        name_or_path: As for `MidwayNetwork.from_pretrained`.
        **kwargs: As for `MidwayNetwork.from_pretrained` (revision, cache_dir, local_files_only).

    Returns:
        The checks, in order.

    Raises:
        OSError: The weights cannot be had, or a file is damaged.
        ValueError: The name is unknown, or weights and architecture do not fit.
    """
    net = MidwayNetwork.from_pretrained(name_or_path, **kwargs)
    return list(_checks(net))


def _checks(net: MidwayNetwork) -> Iterator[Check]:
    report = net.load_report
    assert report is not None  # from_pretrained sets it
    for file, digest in report.sha256.items():
        yield Check("checksum", True, f"{file} sha256 {digest}")
    yield Check("keys", not report.missing and not report.unexpected, f"{len(net.state_dict())} tensors, all in place")
    broken = [key for key, value in net.state_dict().items() if not torch.isfinite(value).all()]
    yield Check("finite weights", not broken, ", ".join(broken) or "all")
    yield _check_any_size(net)
    yield _check_golden(net, report.directory / GOLDEN)


@torch.no_grad()
def _check_any_size(net: MidwayNetwork) -> Check:
    height, width = 101, 67
    processor = net.image_processor.with_short_side(None)
    inputs = processor(named_input("odd", (1, 3, height, width)).sigmoid())
    features = net.encode(inputs["pixel_values"]).last
    finite = bool(torch.isfinite(features).all())
    return Check("odd size", finite, f"a {height}×{width} frame gives {tuple(features.shape)}")


def _check_golden(net: MidwayNetwork, path: Path) -> Check:
    if not path.is_file():
        return Check("golden outputs", None, "none are stored beside these weights")
    stored, computed = load_file(path), golden_outputs(net)
    if stored.keys() != computed.keys():
        return Check("golden outputs", False, f"{path} holds outputs of another network")
    worst = max(float((computed[name] - stored[name]).abs().max()) for name in stored)
    passed = all(torch.allclose(computed[name], stored[name], rtol=RTOL, atol=ATOL) for name in stored)
    return Check("golden outputs", passed, f"{len(stored)} tensors, largest difference {worst:.1e}")
