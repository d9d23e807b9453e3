"""Features of many pictures, kept part by part in a folder, so that an interrupted evaluation goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from midway_hub import MidwayImageProcessor, MidwayNetwork
from midway_hub._durable import whole_file
from midway_hub.processing import load_frame
from midway_hub.training.evaluation.weights import describe_network

Kind = Literal["cls", "mean", "both"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PART = 256  # pictures
READERS = 4  # threads: decoding lets go of the interpreter


@dataclass(frozen=True)
class PictureEncoder:
    """What turns pictures into vectors.

    Attributes:
        name: What tables call it.
        encode: Frames (B, 3, H, W) in [0, 1], each of its own size in a list, to features (B, D), float32 on the CPU.
        settings: All that the features depend on; JSON-able.
    """

    name: str
    encode: Callable[[Sequence[Tensor]], Tensor]
    settings: Mapping[str, Any]


def network_encoder(
    network: MidwayNetwork, processor: MidwayImageProcessor, *, name: str, kind: Kind = "cls"
) -> PictureEncoder:
    """Take features of a network of this package.

    Args:
        network: In eval mode.
        processor: How pictures become frames of one size.
        name: What tables call it.
        kind: The CLS token, the mean of the patches, or both, one after the other.

    Raises:
        ValueError: Another kind, or a network in training mode.
    """
    if kind not in KINDS:
        raise ValueError(f"features must be one of {', '.join(KINDS)}, got {kind!r}")

    @torch.no_grad()
    def encode(pictures: Sequence[Tensor]) -> Tensor:
        found = network.encode(processor(list(pictures))["pixel_values"].to(network.device))
        patches = found.last.float().flatten(2).mean(2)
        kinds = {"cls": [found.cls.float()], "mean": [patches], "both": [found.cls.float(), patches]}
        return torch.cat(kinds[kind], dim=1).cpu()

    settings = {"features": kind, "processor": processor.to_dict(), **describe_network(network)}
    return PictureEncoder(f"{name} {kind}", encode, settings)


def picture_features(
    encoder: PictureEncoder,
    pictures: Sequence[Path],
    *,
    keep: Path | None = None,
    batch: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Encode pictures.

    Args:
        encoder: By what.
        pictures: Files, n of them.
        keep: Folder for finished parts of 256 pictures, which are not computed again; None: nothing is kept.
        batch: Pictures that are encoded at a time.
        progress: Called with how many pictures are done and how many there are.

    Returns:
        (n, D) float32.

    Raises:
        ValueError: A picture cannot be read, or its features are not finite; it is named.
    """
    parts = []
    for start in range(0, len(pictures), PART):
        some = pictures[start : start + PART]
        file = None if keep is None else keep / f"{_fingerprint(encoder, some)}.npy"
        if file is not None and file.is_file():
            parts.append(torch.from_numpy(np.load(file, allow_pickle=False)))
        else:
            parts.append(_encoded(encoder, some, batch, partial(_from, start, len(pictures), progress)))
            if file is not None:
                _save(file, parts[-1])
        progress(start + len(some), len(pictures))
    return torch.cat(parts)


def _from(start: int, total: int, progress: Callable[[int, int], None], done: int) -> None:
    progress(start + done, total)


def _encoded(encoder: PictureEncoder, pictures: Sequence[Path], batch: int, progress: Callable[[int], None]) -> Tensor:
    found = []
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(pictures), batch):
            some = pictures[start : start + batch]
            features = encoder.encode(list(readers.map(lambda path: load_frame(path, name="picture"), some)))
            finite = features.isfinite().all(1)
            if not finite.all():
                first = some[int(finite.int().argmin())]
                raise ValueError(f"features of {first} are not finite; take --dtype float32, or check the weights")
            found.append(features)
            progress(start + len(some))
    return torch.cat(found)


def _fingerprint(encoder: PictureEncoder, pictures: Sequence[Path]) -> str:
    stats = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in ((path, path.stat()) for path in pictures)]
    settings = {key: value for key, value in encoder.settings.items() if key != "device"}
    return hashlib.sha256(json.dumps([settings, stats], sort_keys=True, default=str).encode()).hexdigest()[:32]


def _save(file: Path, features: Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as beside:
        np.save(beside, features.numpy(), allow_pickle=False)
