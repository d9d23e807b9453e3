"""Which weights a number was measured with, and where they ran."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from midway_hub import MidwayNetwork


def describe_network(network: MidwayNetwork) -> dict[str, Any]:
    """Return where a network came from, its weights, how its frames are normalised, what it runs on; JSON-able.

    Raises:
        ValueError: It is in training mode, in which its numbers would be of a network with parts dropped at random.
    """
    if network.training:
        raise ValueError(
            "the network is in training mode, where parts of it are dropped at random; call network.eval()"
        )
    report = network.load_report
    return {
        "weights": report.source if report is not None else "in memory",
        "commit": report.commit if report is not None else None,
        "sha256": weights_digest(network),
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": str(network.device),
        **network.image_processor.normalisation.to_dict(),
    }


@torch.no_grad()
def weights_digest(module: nn.Module) -> str:
    """Return the sha256 of all names and values: equal for equal weights, wherever they lie."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
