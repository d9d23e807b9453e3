"""Estimators by others that flow is compared with in the same run: OpenCV's DIS and torchvision's RAFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from midway_hub.training.evaluation.flow.estimators import Estimator, ZeroMotion
from midway_hub.training.evaluation.flow.networks import FeatureMatching
from midway_hub.training.evaluation.pixels import frame_tensor
from midway_hub.training.evaluation.weights import file_digest
from torch import Tensor

from midway_hub._extras import how_to_install
from midway_hub.devices import checked_device

if TYPE_CHECKING:
    from midway_hub import MidwayNetwork

DIS_PRESETS = ("ultrafast", "fast", "medium")
RAFT_SIZES = ("large", "small")
RAFT_LEAST_SIDE = 128  # below, its coarsest correlation map has no two rows
RAFT_MULTIPLE = 8
SEED = 0
RANDOM = "random"


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
            raise ImportError(f"the peer dis needs OpenCV: {how_to_install('cv2')}") from error
        self.name = "dis"
        self.settings: dict[str, Any] = {
            "kind": "OpenCV DIS",
            "preset": preset,
            "version": cv2.__version__,
            "short_side": None,
        }
        self._grey = lambda frame: cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self._search: Any = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `Estimator`."""
        flow = self._search.calc(self._grey(first), self._grey(second), None)
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
        ValueError: Another size, or weights of another network.
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
            "sha256": None if weights is None else file_digest(weights),
            "updates": updates,
            "dtype": "float32",
            "device": str(device),
            "short_side": None,
        }

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `Estimator`."""
        height, width = first.shape[:2]
        device = next(self.network.parameters()).device
        padded = [_padded(frame_tensor(frame, device).float() / 127.5 - 1) for frame in (first, second)]
        flow = self.network(*padded, num_flow_updates=self.updates)[-1]
        return flow[0, :, :height, :width].float().cpu().numpy()


def _padded(frame: Tensor) -> Tensor:
    """Pad a frame to the size that RAFT takes, on the right and at the bottom."""
    missing = [
        max(RAFT_LEAST_SIDE, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) - side for side in reversed(frame.shape[-2:])
    ]
    return F.pad(frame, (0, missing[0], 0, missing[1]), mode="replicate")


def _load(network: torch.nn.Module, weights: Path) -> None:
    if not weights.is_file():
        raise FileNotFoundError(f"no weights of RAFT at {weights}")
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not hold the weights of this RAFT: {str(error)[:300]}") from error


def build_peers(
    names: list[str], *, network: MidwayNetwork | None = None, device: torch.device | str = "cpu"
) -> list[Estimator]:
    """Make peers by name.

    Args:
        names: `zero`, `dis`, `matching`, `raft_large=FILE`, `raft_small=FILE`. RAFT without a file takes the weights
            that torchvision has downloaded before; `raft_large=random` measures its time alone.
        network: Whose encoder `matching` uses.
        device: Where RAFT runs.

    Raises:
        ImportError: A peer's package is missing.
        ValueError: An unknown name, `matching` without a network, or RAFT without weights.
    """

    def matching(_: str) -> Estimator:
        if network is None:
            raise ValueError("the peer matching compares features of a network; give a model")
        return FeatureMatching(network)

    known: dict[str, Callable[[str], Estimator]] = {
        "zero": lambda _: ZeroMotion(),
        "dis": lambda _: DIS(),
        "raft_large": lambda weights: RAFT("large", weights=_raft_weights("large", weights), device=device),
        "raft_small": lambda weights: RAFT("small", weights=_raft_weights("small", weights), device=device),
        "matching": matching,
    }
    peers = []
    for entry in names:
        name, _, weights = entry.partition("=")
        if name not in known:
            raise ValueError(f"there is no peer {name!r}; there are: {', '.join(known)}")
        if weights and not name.startswith("raft"):
            raise ValueError(f"the peer {name} takes no weights, got {entry!r}")
        peers.append(known[name](weights))
    return peers


def _raft_weights(size: str, text: str) -> Path | None:
    """Return the file of RAFT's weights that is meant: the one named, or torchvision's where it is cached."""
    from torchvision.models import optical_flow

    if text:
        return None if text == RANDOM else Path(text)
    published = getattr(optical_flow, f"Raft_{size.capitalize()}_Weights").DEFAULT.url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / published
    if not cached.is_file():
        raise ValueError(
            f"the peer raft_{size} needs weights, and there are none at {cached}: name a file, raft_{size}=FILE, "
            f"or put {published} there; raft_{size}={RANDOM} measures the time of an untrained one"
        )
    return cached
