"""Estimators of flow by others, to see beside a network's: OpenCV's DIS, torchvision's RAFT and ptlflow's models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._extras import how_to_install
from midway_hub._regular import refuse_irregular
from midway_hub.devices import checked_device
from midway_hub.processing.arrays import frame_tensor

DIS_PRESETS = ("ultrafast", "fast", "medium")
RAFT_SIZES = ("large", "small")
RAFT_LEAST_SIDE = 128  # below, its coarsest correlation map has no two rows
RAFT_MULTIPLE = 8
SEED = 0
RANDOM = "random"
PTLFLOW = "ptlflow:"
PEERS = ("dis", "raft_large", "raft_small", f"{PTLFLOW}NAME")
"""What `make_peer` takes; RAFT and ptlflow's models also as NAME=FILE, with weights of one's own."""


class FlowPeer(Protocol):
    """Something that estimates optical flow between two frames.

    Attributes:
        name: What tables and pictures call it.
        settings: Everything that its numbers depend on, JSON-able.
    """

    name: str
    settings: dict[str, Any]

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Map frames (H, W, 3) uint8 RGB to the flow between them, (2, H, W) float32 in pixels, x then y."""
        ...


def is_peer(text: str) -> bool:
    """Return whether a name is one that `make_peer` takes."""
    return text.partition("=")[0] in PEERS or text.startswith(PTLFLOW)


def make_peer(text: str, *, device: torch.device | str = "cpu", download: bool = False) -> FlowPeer:
    """Make an estimator by its name: `dis`, `raft_large`, `raft_small`, `ptlflow:NAME`, or with weights `NAME=FILE`.

    RAFT without a file takes torchvision's weights: those of `raft_small` were trained on FlyingChairs and
    FlyingThings, those of `raft_large` finetuned on Sintel, KITTI and HD1K too, so that its numbers there are of data
    it has seen. ptlflow gets its own weights, each model's under its authors' licence.

    Args:
        text: The name.
        device: Where networks run.
        download: Whether torchvision may download RAFT's weights where it has not before.

    Raises:
        ImportError: A package is missing.
        ValueError: An unknown name, weights for DIS, or RAFT without weights.
        FileNotFoundError: There is no such file of weights.
    """
    name, _, weights = text.partition("=")
    if name.startswith(PTLFLOW):
        return PtlFlow(name.removeprefix(PTLFLOW), weights=Path(weights) if weights else None, device=device)
    makers: dict[str, Callable[[], FlowPeer]] = {
        "dis": DIS,
        "raft_large": lambda: RAFT("large", weights=raft_weights("large", weights, download=download), device=device),
        "raft_small": lambda: RAFT("small", weights=raft_weights("small", weights, download=download), device=device),
    }
    if name not in makers:
        raise ValueError(f"there is no estimator {name!r}; there are: {', '.join(PEERS)}")
    if weights and name == "dis":
        raise ValueError(f"dis takes no weights, got {text!r}")
    return makers[name]()


class DIS:
    """OpenCV's dense inverse search (Kroeger et al., 2016), on grey frames.

    Args:
        preset: `ultrafast`, `fast` or `medium`.

    Raises:
        ImportError: OpenCV is not installed.
        ValueError: Another preset.
    """

    def __init__(self, preset: str = "medium") -> None:
        if preset not in DIS_PRESETS:
            raise ValueError(f"DIS has the presets {', '.join(DIS_PRESETS)}, got {preset!r}")
        try:
            import cv2
        except ImportError as error:
            raise ImportError(f"dis needs OpenCV: {how_to_install('cv2')}") from error
        self.name = "dis"
        self.settings: dict[str, Any] = {
            "kind": "OpenCV DIS",
            "preset": preset,
            "version": cv2.__version__,
            "short_side": None,
        }
        self._refusal: type[Exception] = cv2.error
        self._grey = lambda frame: cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self._search: Any = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `FlowPeer`. A ValueError says where OpenCV refuses frames: they are too small."""
        try:
            flow = self._search.calc(self._grey(first), self._grey(second), None)
        except self._refusal as error:
            height, width = first.shape[:2]
            reason = getattr(error, "err", None) or error
            raise ValueError(f"dis does not take frames of {height}×{width} (height×width): {reason}") from None
        return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


class RAFT:
    """torchvision's RAFT (Teed and Deng, 2020).

    Frames are padded by repeating their edge to multiples of 8 and at least 128 pixels, and the flow is cropped back.

    Args:
        size: `large` or `small`.
        weights: File of a state dict, .pth or .safetensors; default: random weights, which its name then says.
        updates: Iterations.
        device: Where it runs.

    Raises:
        FileNotFoundError: There is no such file.
        IrregularFileError: The weights are a pipe or a device.
        ValueError: Another size, or weights that are damaged or of another network.
    """

    def __init__(
        self,
        size: str = "large",
        *,
        weights: Path | None = None,
        updates: int = 12,
        device: torch.device | str = "cpu",
    ) -> None:
        if size not in RAFT_SIZES:
            raise ValueError(f"RAFT comes in {', '.join(RAFT_SIZES)}, got {size!r}")
        from torchvision.models import optical_flow

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(SEED)
            network = getattr(optical_flow, f"raft_{size}")(weights=None, progress=False)
        if weights is not None:
            _load(network, weights)
        self.network, self.updates = network.eval().to(checked_device(device)), updates
        self.name = f"raft_{size}" if weights is not None else f"raft_{size} (random weights)"
        self.settings: dict[str, Any] = {
            "kind": f"torchvision raft_{size}",
            "weights": f"random weights (seed {SEED})" if weights is None else weights.name,
            "sha256": None if weights is None else _digest(weights),
            "updates": updates,
            "dtype": "float32",
            "device": str(device),
            "short_side": None,
        }

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `FlowPeer`."""
        height, width = first.shape[:2]
        device = next(self.network.parameters()).device
        padded = [padded_frames(frame_tensor(frame, device) / 127.5 - 1) for frame in (first, second)]
        flow = self.network(*padded, num_flow_updates=self.updates)[-1]
        return flow[0, :, :height, :width].float().cpu().numpy()


def padded_frames(frame: Tensor) -> Tensor:
    """Pad a frame to the size that RAFT takes, on the right and at the bottom."""
    missing = [
        max(RAFT_LEAST_SIDE, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) - side for side in reversed(frame.shape[-2:])
    ]
    return F.pad(frame, (0, missing[0], 0, missing[1]), mode="replicate")


def _load(network: torch.nn.Module, weights: Path) -> None:
    refuse_irregular(weights)
    if not weights.is_file():
        raise FileNotFoundError(f"no weights of RAFT at {weights}")
    try:
        network.load_state_dict(_state_dict(weights))
    except OSError:
        raise
    except Exception as error:  # of a damaged file, torch's reader and its unpickler raise what they come across
        reason = str(error)[:300] or type(error).__name__
        raise ValueError(f"{weights} does not hold the weights of this RAFT, or is damaged: {reason}") from error


def _state_dict(weights: Path) -> dict[str, Tensor]:
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state


class PtlFlow:
    """A model of ptlflow (Morimitsu, 2021), by its name there, with the weights that it publishes for it.

    Args:
        model: Such as `pwcnet`, `raft` or `sea_raft_s`.
        weights: A checkpoint, or its name at ptlflow such as `things`; default: `things`.
        device: Where it runs.

    Raises:
        ImportError: ptlflow is not installed.
        ValueError: ptlflow has no such model, or cannot have its weights.
    """

    def __init__(self, model: str, *, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        try:
            import ptlflow
            from ptlflow.utils.io_adapter import IOAdapter
        except ImportError as error:
            raise ImportError(f"{PTLFLOW}{model} needs the package ptlflow: {how_to_install('ptlflow')}") from error
        chosen = "things" if weights is None else str(weights)
        try:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(SEED)
                self.network = ptlflow.get_model(model, ckpt_path=None if chosen == RANDOM else chosen)
        except Exception as error:
            raise ValueError(f"ptlflow gives no model {model!r} with weights {chosen!r}: {error}") from error
        self.network = self.network.eval().to(checked_device(device))
        self._device, self._adapter = checked_device(device), IOAdapter
        self.name = f"{PTLFLOW}{model}" + (" (random weights)" if chosen == RANDOM else "")
        self.settings: dict[str, Any] = {
            "kind": f"ptlflow {model}",
            "version": ptlflow.__version__,
            "weights": f"random weights (seed {SEED})" if chosen == RANDOM else chosen,
            "sha256": _digest(Path(chosen)) if Path(chosen).is_file() else None,
            "device": str(device),
            "short_side": None,
        }

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `FlowPeer`."""
        adapter = self._adapter(output_stride=self.network.output_stride, input_size=first.shape[:2])
        # ptlflow's models take frames as OpenCV reads them, blue first.
        inputs = adapter.prepare_inputs([np.ascontiguousarray(frame[..., ::-1]) for frame in (first, second)])
        moved = {name: value.to(self._device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        found = adapter.unscale(self.network(moved))
        return np.ascontiguousarray(found["flows"][0, 0].float().cpu().numpy())


def raft_weights(size: str, text: str, *, download: bool = False) -> Path | None:
    """Return the file of RAFT's weights that is meant: the one named, or torchvision's, cached or downloaded now.

    Args:
        size: `large` or `small`.
        text: A file, `random` for none, or nothing for torchvision's.
        download: Whether torchvision may download its own.

    Raises:
        ValueError: There are none, or they cannot be downloaded.
    """
    from torchvision.models import optical_flow

    if text:
        return None if text == RANDOM else Path(text)
    published = getattr(optical_flow, f"Raft_{size.capitalize()}_Weights").DEFAULT
    name = published.url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.is_file():
        return cached
    advice = (
        f"name a file, raft_{size}=FILE, or put {name} there; raft_{size}={RANDOM} measures the time of an untrained "
        "one"
    )
    if not download:
        raise ValueError(f"raft_{size} needs weights, and there are none at {cached}: {advice}")
    try:
        published.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no connection, no room, or not the file that was published
        raise ValueError(
            f"raft_{size} needs weights, there are none at {cached}, and {published.url} cannot be downloaded "
            f"({error}): {advice}"
        ) from error
    return cached


def _digest(file: Path) -> str:
    refuse_irregular(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
