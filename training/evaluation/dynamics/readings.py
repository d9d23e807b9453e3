"""Ways of reading coarse flow: off perturbation heatmaps, off matched features, and the flow of a still world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.analysis.coarse_flow import Rule, coarse_flow, forward_backward_confidence
from midway_hub.analysis.gates import without_gates
from midway_hub.analysis.matching import matching_heatmaps
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.outputs import Motion
from midway_hub.training.evaluation.weights import describe_network

RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Reading:
    """Coarse flow of one pair of frames.

    Attributes:
        flow: (2, h, w) in pixels of the model input, source to target, x to the right, then y down.
        confidence: (h, w), between 0 and 1.
    """

    flow: Tensor
    confidence: Tensor


class Reader(Protocol):
    """Something that reads coarse flow, in one way or several.

    Attributes:
        name: What it is called in results.
        model: Which network it reads, as tables call it.
        patch_size: Side of its patches in pixels.
        settings: Everything that its numbers depend on, JSON-able.

    One that reads a network also has `image_processor`, the network's; frames are made by ImageNet's numbers elsewhere.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def patch_size(self) -> int: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Reading]:
        """Read the flow between two frames (1, 3, H, W), normalised, of whole patches; returns readings by way."""
        ...


class StandStill:
    """The flow of a world that stands still: what every other one has to beat.

    Args:
        patch_size: Side of a patch in pixels.
    """

    name, model = "zero", "zero motion"

    def __init__(self, patch_size: int = 16) -> None:
        self.patch_size = patch_size
        self.settings: dict[str, Any] = {"kind": "zero motion", "patch_size": patch_size}

    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Reading]:
        """Return zeros; see `Reader`."""
        grid = [side // self.patch_size for side in source.shape[-2:]]
        return {"-": Reading(torch.zeros(2, *grid), torch.ones(*grid))}


class Matching:
    """Nearest-feature matching with a network's encoder: by the peak and the soft peak of cosine similarity.

    Args:
        network: Whose teacher's last features are compared.
        model: What tables call the network.
    """

    def __init__(self, network: MidwayNetwork, *, model: str = "network") -> None:
        self.network, self.model, self.name = network, model, f"{model}: matching"
        self.patch_size, self.image_processor = network.config.patch_size, network.image_processor
        self.settings: dict[str, Any] = {
            "kind": "nearest-feature matching",
            "features": "last block",
            **describe_network(network),
        }

    @torch.no_grad()
    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Reading]:
        """Return the ways `peak` and `soft`; see `Reader`."""
        frames = (frame.to(self.network.device) for frame in (source, target))
        features = [self.network.encode(frame).last[0].float() for frame in frames]
        forward, backward = matching_heatmaps(*features), matching_heatmaps(*features[::-1])
        return {rule: _reading(forward, backward, rule, self.patch_size) for rule in RULES}


class Perturbation:
    """Forward feature perturbation (paper section 4.4), level by level: by the heatmaps' peak and soft peak.

    Args:
        network: With dynamics, in eval mode.
        gates: Whether its gating units work; without, every gate is 1, see `without_gates`.
        draws: Random directions per patch.
        seed: Seed of the directions.
        model: What tables call the network.

    Raises:
        ValueError: The network has no dynamics, or gating units are asked for that it does not have.
    """

    def __init__(
        self, network: MidwayNetwork, *, gates: bool = True, draws: int = 8, seed: int = 0, model: str = "network"
    ) -> None:
        if not network.config.dynamics:
            raise ValueError(f"{model} is an encoder alone, without dynamics; only its features can be matched")
        if gates and not network.config.gating:
            raise ValueError(f"{model} has no gating units that could be on; measure it with gates off")
        self.model, self.name = model, f"{model}: gates {'on' if gates else 'off'}"
        self.patch_size, self.image_processor = network.config.patch_size, network.image_processor
        self.draws, self.seed = draws, seed
        self.settings: dict[str, Any] = {
            "kind": "forward feature perturbation",
            "gates": "on" if gates else "off" if network.config.gating else "none",
            "draws": draws,
            "seed": seed,
            **describe_network(network),
        }
        self.network = network if gates or not network.config.gating else without_gates(network)

    @torch.no_grad()
    def __call__(self, source: Tensor, target: Tensor) -> dict[str, Reading]:
        """Return the ways `level 8, peak`, `level 8, soft` and so on; see `Reader`."""
        source, target = (frame.to(self.network.device) for frame in (source, target))
        there, back = self.network.infer_motion(source, target), self.network.infer_motion(target, source)
        found = {}
        for level in there.levels:
            forward, backward = (self._heatmaps(motion, level) for motion in (there, back))
            for rule in RULES:
                found[f"level {level}, {rule}"] = _reading(forward, backward, rule, self.patch_size)
        return found

    def _heatmaps(self, motion: Motion, level: int) -> Tensor:
        return perturbation_heatmaps(self.network, motion, level=level, draws=self.draws, seed=self.seed).float()


def _reading(forward: Tensor, backward: Tensor, rule: Rule, patch_size: int) -> Reading:
    """Read heatmaps (N, h, w) from source to target, and the other way round for how sure that is."""
    there, back = (coarse_flow(heatmaps, patch_size=patch_size, rule=rule) for heatmaps in (forward, backward))
    confidence = forward_backward_confidence(there, back, patch_size=patch_size)
    return Reading(there.cpu(), confidence.cpu())
