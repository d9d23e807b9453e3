"""Features and motion of images and videos, one output file for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.extraction.frames import Frames
from midway_hub.extraction.results import Extraction, Progress
from midway_hub.extraction.runner import Rows, Settings, run
from midway_hub.extraction.sources import StrPath, find_motion_sources, find_sources
from midway_hub.extraction.spool import Format
from midway_hub.models._checks import normalise_layers
from midway_hub.models.network import MidwayNetwork, Network, OutputFormat
from midway_hub.processing import MidwayImageProcessor

KEEPABLE = ("last", "cls")


def extract_features(
    net: MidwayNetwork,
    inputs: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    layers: Sequence[int] = (),
    keep: Sequence[str] = KEEPABLE,
    network: Network = "teacher",
    output_format: OutputFormat = "grid",
    every: int = 1,
    batch: int = 8,
    processor: MidwayImageProcessor | None = None,
    format: Format = "safetensors",
    reader: str = "auto",
    overwrite: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Extraction:
    """Write the features of every image and video to a file of its own, `OUTPUT/clip.mp4.safetensors`.

    A file holds T frames: `last` (T, D, h, w), or (T, 1+N, D) as tokens; `cls` (T, D); `layer_{i}` shaped like `last`;
    `timestamps` (T,) float64 in seconds and `frame_indices` (T,) int64. Floats are float32 for a float32 network, else
    float16. Metadata say what it was made from and how (`read_metadata`).

    Outputs that are finished are skipped, so a run that was stopped is taken up by the same call. Several processes
    (torchrun) share the sources without talking to each other. Memory holds one batch, however long a video is.

    Args:
        net: The network, in eval mode, in the precision and on the device to compute with.
        inputs: Image files, video files, folders, `.txt` lists, as `find_sources` takes them.
        output: Folder for the outputs; made if need be.
        layers: Blocks to store beside the last, from 0; negatives count from the last.
        keep: What to store of the last block: "last", "cls", both or neither.
        network: "teacher" (plain features) or "student".
        output_format: "grid" or "tokens".
        every: Of a video, take every k-th frame, from the first.
        batch: Frames that are encoded at a time.
        processor: What turns frames into model input; default: as the checkpoint says, which is each frame at its own
            size, padded to whole patches, unless it was saved with another fit.
        format: "safetensors" or "npz".
        reader: Video reader, or "auto".
        overwrite: Whether outputs that were made otherwise are made anew; else they are an error.
        rank: Number of this process; default: the environment's RANK, else 0.
        world_size: Number of processes; default: the environment's WORLD_SIZE, else 1.
        progress: Called as the work goes on.

    Returns:
        What this process did: sources done, skipped and failed. A source that cannot be read, or whose features are
        not finite, is in `failed` with the reason, and the others go on.

    Raises:
        ValueError: An option is out of range, or as `find_sources`.
        FileNotFoundError: An input does not exist.
        OutputExistsError: Outputs exist that were made otherwise; found before any work.
        StorageError: An output cannot be written, as on a full disk.
        NotADirectoryError: `output` is a file.
    """
    wanted = tuple(dict.fromkeys(normalise_layers(layers, net.config.depth)))
    _check_keep(keep, wanted)
    net.encoder(network)
    if output_format not in ("grid", "tokens"):
        raise ValueError(f"output_format must be 'grid' or 'tokens', got {output_format!r}")
    settings = Settings(net, every, batch, processor or net.image_processor, format, reader)
    kept = tuple(name for name in KEEPABLE if name in keep)
    job = _Features(settings, wanted, kept, network, output_format)
    return run(
        job,
        settings,
        find_sources(inputs),
        output,
        overwrite=overwrite,
        rank=rank,
        world_size=world_size,
        progress=progress,
    )


def extract_motion(
    net: MidwayNetwork,
    inputs: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    every: int = 1,
    batch: int = 8,
    processor: MidwayImageProcessor | None = None,
    format: Format = "safetensors",
    reader: str = "auto",
    overwrite: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Extraction:
    """Write the motion latents of every video, or of a pair of images, to a file of its own.

    A file holds P pairs of consecutive kept frames: `latents_level_{l}` (P, M, Dm) per level; `pairs` (P, 2) int64,
    source and target frame; `timestamps` (P, 2) float64 in seconds. Two images are one pair, from the first to the
    second, in `OUTPUT/A--B.safetensors`; their times are 0.

    Args:
        net: As in `extract_features`; it has dynamics.
        inputs: Videos, folders and lists of videos; or exactly two image files of one size.
        output: As in `extract_features`, and so on.
        every: Of a video, take every k-th frame, from the first; the k frames between two are the gap of a pair.
        batch: Pairs that are computed at a time.
        processor: As in `extract_features`.
        format: As in `extract_features`.
        reader: As in `extract_features`.
        overwrite: As in `extract_features`.
        rank: As in `extract_features`.
        world_size: As in `extract_features`.
        progress: As in `extract_features`.

    Returns:
        As `extract_features`.

    Raises:
        ValueError: The checkpoint has no dynamics; images that are not a pair; and as `extract_features`.
        OSError: As `extract_features`.
    """
    net._require_dynamics()
    settings = Settings(net, every, batch, processor or net.image_processor, format, reader)
    return run(
        _Motion(settings),
        settings,
        find_motion_sources(inputs),
        output,
        overwrite=overwrite,
        rank=rank,
        world_size=world_size,
        progress=progress,
    )


@dataclass(frozen=True)
class _Features:
    settings: Settings
    layers: tuple[int, ...]
    keep: tuple[str, ...]
    network: Network
    output_format: OutputFormat

    @property
    def request(self) -> dict[str, Any]:
        return {
            "kind": "features",
            "layers": list(self.layers),
            "keep": list(self.keep),
            "network": self.network,
            "output_format": self.output_format,
        }

    def count(self, frames: Frames) -> int:
        return len(frames)

    def rows(self, frames: Frames) -> Iterator[Rows]:
        for batch in frames.batches(self.settings.batch):
            features = self.settings.net.encode(
                batch.pixel_values, layers=self.layers, output_format=self.output_format, network=self.network
            )
            kept = {name: getattr(features, name) for name in self.keep}
            kept |= {f"layer_{i}": layer for i, layer in zip(self.layers, features.layers, strict=True)}
            rows = _stored(kept, self.settings.stored_dtype)
            yield {**rows, "timestamps": batch.timestamps, "frame_indices": batch.indices}


@dataclass(frozen=True)
class _Motion:
    settings: Settings

    @property
    def request(self) -> dict[str, Any]:
        return {"kind": "motion"}

    def count(self, frames: Frames) -> int:
        if len(frames) < 2:
            raise ValueError(f"motion needs at least two frames, got {len(frames)} (every={self.settings.every})")
        return len(frames) - 1

    def rows(self, frames: Frames) -> Iterator[Rows]:
        for window in frames.windows(self.settings.batch):
            motion = self.settings.net(window.pixel_values[None]).motion
            latents = {f"latents_level_{level}": m[0] for level, m in zip(motion.levels, motion.latents, strict=True)}
            rows = _stored(latents, self.settings.stored_dtype)
            yield {**rows, "timestamps": _pairs(window.timestamps), "pairs": _pairs(window.indices)}


def _stored(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, np.ndarray]:
    return {name: tensor.to(dtype).cpu().numpy() for name, tensor in tensors.items()}


def _pairs(values: np.ndarray) -> np.ndarray:
    """Pair every entry of (n,) with the next: (n-1, 2)."""
    return np.stack([values[:-1], values[1:]], axis=1)


def _check_keep(keep: Sequence[str], layers: Sequence[int]) -> None:
    unknown = [name for name in keep if name not in KEEPABLE]
    if isinstance(keep, str) or unknown:
        raise ValueError(f"keep must be a sequence of names out of {', '.join(KEEPABLE)}, got {keep!r}")
    if not keep and not layers:
        raise ValueError("nothing would be stored: keep is empty and no layers are asked for")
