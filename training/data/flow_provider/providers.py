"""Providers of flow: the estimators of `midway_hub.flow_peers`, checkpoints with a flow head, and files."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.devices import checked_device
from midway_hub.extraction.sources import IMAGE_SUFFIXES
from midway_hub.flow_io import FLOW_SUFFIXES, FlowFileError, read_flow
from midway_hub.flow_peers import DIS, PTLFLOW, RAFT, FlowPeer, PtlFlow, padded_frames, raft_weights
from midway_hub.training.data.flow_provider.cache import CachedFlow
from midway_hub.training.data.flow_provider.protocol import FlowProvider, Names, check_frames, only_known
from midway_hub.training.data.flow_provider.settings import DIS as DIS_NAME
from midway_hub.training.data.flow_provider.settings import FILES, MIDWAY, WORLD, FlowProviderSettings
from midway_hub.training.data.views import normalise
from midway_hub.training.settings import from_home

PLACES = ("device", "short_side")
"""What estimators' settings say that numbers do not depend on here."""
ORIGINS = ("weights", "commit")
"""Where weights came from, which a checksum makes needless."""
VOLUME_BYTES = 4 * 2**30
"""Memory that the correlation volumes of a batch may take in RAFT; more pairs are computed one after the other."""
VOLUME_STRIDE, VOLUME_LEVELS, FLOAT_BYTES = 8, 4 / 3, 4


def open_flow_provider(settings: FlowProviderSettings, *, device: torch.device | str = "cpu") -> FlowProvider | None:
    """Make the provider that settings name, with its cache where they ask for one.

    Torch's random numbers stay as they were.

    Args:
        settings: Which provider, of which weights, and where its answers are kept.
        device: Where networks run.

    Returns:
        The provider; None for `world`, whose data bring their flow along.

    Raises:
        ImportError: A package that the provider needs is missing.
        ValueError: There is no such model, it has no weights or no flow head, takes no updates, or the cache is another
            provider's.
        FileNotFoundError: There is no such file of weights or folder of files.
    """
    if settings.provider == WORLD:
        return None
    provider = _opened(settings, device)
    return provider if settings.cache is None else CachedFlow(provider, settings.cache, settings.cache_bytes)


def _opened(settings: FlowProviderSettings, device: torch.device | str) -> FlowProvider:
    name = settings.provider
    if name == FILES:
        assert settings.path is not None
        return FilesFlow(settings.path)
    if name == DIS_NAME:
        return PeerFlow(DIS())
    weights = "" if settings.weights is None else str(from_home(Path(settings.weights)))
    if name.startswith(PTLFLOW):
        return PeerFlow(_ptlflow(name.removeprefix(PTLFLOW), weights, device), device)
    if name.startswith(MIDWAY):
        return MidwayFlow(name.removeprefix(MIDWAY), updates=settings.updates, device=device)
    return RaftFlow(_raft(name.removeprefix("raft_"), weights, settings.updates, device))


class PeerFlow:
    """An estimator of `midway_hub.flow_peers`, asked pair by pair.

    Args:
        peer: The estimator.
        device: Where it computes.
    """

    def __init__(self, peer: FlowPeer, device: torch.device | str = "cpu") -> None:
        self.peer, self.device = peer, checked_device(device)

    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow; see `FlowProvider`."""
        check_frames(first, second)
        pairs = zip(_pictures(first), _pictures(second), strict=True)
        with torch.autocast(self.device.type, enabled=False):
            found = np.stack([self.peer(*pair) for pair in pairs])
        return only_known(torch.from_numpy(found).to(first.device))

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, version, checksum of the weights, and numbers."""
        return lasting(self.peer.settings)


class RaftFlow:
    """torchvision's RAFT on whole batches; frames of any size are padded as the estimator pads them.

    Args:
        peer: The estimator, whose network and device are used.
    """

    def __init__(self, peer: RAFT) -> None:
        self.peer = peer
        self.device = next(peer.network.parameters()).device

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow; see `FlowProvider`."""
        check_frames(first, second)
        at_once = _pairs_at_once(*first.shape[-2:])
        parts = zip(first.split(at_once), second.split(at_once), strict=True)
        with torch.autocast(self.device.type, enabled=False):
            found = torch.cat([self._estimate(*part) for part in parts])
        return only_known(found.to(first.device))

    def _estimate(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        padded = [padded_frames(frames.to(self.device) / 127.5 - 1) for frames in (first, second)]
        return self.peer.network(*padded, num_flow_updates=self.peer.updates)[-1][..., :height, :width]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, checksum of the weights, and updates."""
        return lasting(self.peer.settings)


class MidwayFlow:
    """A Midway checkpoint with a flow head, on frames at their own size.

    Args:
        name: Registry name, Hub repo or folder.
        updates: Of a correlation head; default: as its configuration says.
        device: Where it runs.

    Raises:
        MissingHeadError: It has no flow head.
        ValueError: There is no such checkpoint, or it makes no updates.
    """

    def __init__(self, name: str, *, updates: int | None = None, device: torch.device | str = "cpu") -> None:
        self.network = MidwayNetwork.from_pretrained(name, device=device).requires_grad_(False)
        self.network.check_flow_options(updates=updates)
        self.updates, self.device = updates, self.network.device

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow; see `FlowProvider`."""
        check_frames(first, second)
        processing = self.network.image_processor.normalisation
        source, target = (normalise(frames.to(self.device), processing) for frames in (first, second))
        with torch.autocast(self.device.type, enabled=False):
            return only_known(self.network.flow(source, target, updates=self.updates).flow.to(first.device))

    def fingerprint(self) -> dict[str, Any]:
        """Return what the head is, its tiles and updates, a checksum of all weights, and how frames are normalised."""
        from midway_hub.training.evaluation.flow.networks import NetworkFlow

        said = {**NetworkFlow(self.network).settings, "updates": self.updates, "head": self.network.config.flow_head}
        return lasting(said)


class FilesFlow:
    """Flow in files, FOLDER/FIRST_SECOND.flo by the names of the frames; asked without names, it has no answer.

    Args:
        folder: It mirrors the frames' names.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of flow {folder}")
        self.folder, self.device = folder, torch.device("cpu")

    def __call__(self, first: Tensor, second: Tensor, *, names: Names | None = None) -> Tensor:
        """Return the flow; see `FlowProvider`.

        Raises:
            ValueError: There are no names, or not one pair of them for every pair of frames.
            FileNotFoundError: There is no file for a pair.
            FlowFileError: A file is damaged, or of frames of another size.
        """
        check_frames(first, second)
        if names is None or len(names) != len(first):
            said = "none" if names is None else f"{len(names)}"
            raise ValueError(f"flow in files is found by the names of the frames: {len(first)} pairs, {said} of names")
        found = np.stack([self._read(*pair, (first.shape[2], first.shape[3])) for pair in names])
        return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous().to(first.device)

    def fingerprint(self) -> dict[str, Any]:
        """Return that it is files, and where: their numbers are theirs."""
        return {"kind": FILES, "folder": str(self.folder.absolute())}

    def _read(self, first: str, second: str, size: tuple[int, int]) -> np.ndarray:
        stem = self.folder / f"{_stem(first)}_{_stem(second).name}"
        files = [Path(f"{stem}{suffix}") for suffix in FLOW_SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"there is no flow from {first} to {second}: wanted {files[0]} (or {', '.join(FLOW_SUFFIXES[1:])})"
            )
        field = read_flow(found)
        if field.valid.shape != size:
            seen = "×".join(map(str, field.valid.shape))
            raise FlowFileError(f"{found} is of {seen} pixels (height×width), its frames of {size[0]}×{size[1]}")
        return field.with_unknown(np.nan)


def lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what an estimator's settings say of its numbers: not where it runs, nor where known weights came from."""
    known = (*PLACES, *ORIGINS) if settings.get("sha256") else PLACES
    return {key: value for key, value in settings.items() if key not in known}


def _raft(size: str, weights: str, updates: int | None, device: torch.device | str) -> RAFT:
    try:
        file = raft_weights(size, weights, download=True)
    except ValueError as error:
        raise ValueError(f"{error}. Here the file is named by data.flow.weights") from error
    chosen = {} if updates is None else {"updates": updates}
    return RAFT(size, weights=file, device=device, **chosen)


def _ptlflow(model: str, weights: str, device: torch.device | str) -> PtlFlow:
    try:
        return PtlFlow(model, weights=Path(weights) if weights else None, device=device)
    except ValueError as error:
        import ptlflow

        there = ptlflow.get_model_names()
        if model in there:
            raise
        near = difflib.get_close_matches(model, there, n=3, cutoff=0.5)
        advice = f"near ones are {', '.join(near)}" if near else "ptlflow.get_model_names() lists those it has"
        raise ValueError(f"ptlflow has no model {model!r}; {advice}") from error


def _pictures(frames: Tensor) -> list[np.ndarray]:
    """Frames (B, 3, H, W) as B arrays (H, W, 3)."""
    return list(frames.permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _pairs_at_once(height: int, width: int) -> int:
    cells = -(-height // VOLUME_STRIDE) * -(-width // VOLUME_STRIDE)
    return max(1, int(VOLUME_BYTES / (cells**2 * VOLUME_LEVELS * FLOAT_BYTES)))


def _stem(name: str) -> Path:
    """A frame's name without the ending of a picture."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
