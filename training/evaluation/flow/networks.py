"""Flow of a Midway network: by its flow head, or by matching the features of its encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from midway_hub import MidwayNetwork
from midway_hub.analysis.coarse_flow import coarse_flow
from midway_hub.analysis.matching import matching_heatmaps
from midway_hub.models.flow import DEFAULT_OVERLAP, Tile, flow_window
from midway_hub.models.network import MissingHeadError
from midway_hub.training.evaluation.pixels import inputs_of
from midway_hub.training.evaluation.weights import describe_network


class NetworkFlow:
    """The flow head of a network, on whole frames or in tiles.

    Args:
        network: With a flow head, in eval mode; where it lies and in which precision is how it runs.
        tile: As for `MidwayNetwork.flow`.
        overlap: Share of a window that the next one covers again; default with `tile`: 0.5. CroCo v2 validates at 0.7
            and reports at 0.9, which are different numbers.
        name: What tables call it.

    Raises:
        MissingHeadError: The network has no flow head.
        ValueError: An overlap without tiles.
    """

    def __init__(
        self,
        network: MidwayNetwork,
        *,
        tile: Tile = "default",
        overlap: float | None = None,
        name: str = "network",
    ) -> None:
        if not network.has_flow_head:
            raise MissingHeadError(
                f"{name} has no flow head to evaluate; finetune one with `python -m midway_hub.training flow RECIPE`, "
                "or evaluate its features with the peer `matching`"
            )
        window = flow_window(tile, network.flow_head.config, network.config.patch_size)
        if window is None and overlap is not None:
            raise ValueError(f"overlap {overlap} is of tiles, and none are asked for; give a tile size as well")
        self.network, self.name = network, name
        self.tile = window
        self.overlap = None if self.tile is None else DEFAULT_OVERLAP if overlap is None else overlap
        self.settings: dict[str, Any] = {
            "kind": "flow head",
            "tile": None if self.tile is None else list(self.tile),
            "overlap": self.overlap,
            "short_side": None,
            **describe_network(network),
        }

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `Estimator`."""
        source, target = inputs_of(self.network, first, second)
        return self.network.flow(source, target, tile=self.tile, overlap=self.overlap).flow[0].float().cpu().numpy()


class FeatureMatching:
    """Nearest-feature matching: every patch went where the target's most similar patch is; bilinear in between.

    Args:
        network: Whose encoder's last features are matched.
        name: What tables call it.
    """

    def __init__(self, network: MidwayNetwork, *, name: str = "matching") -> None:
        self.network, self.name = network, name
        self.settings: dict[str, Any] = {
            "kind": "nearest-feature matching",
            "features": "last block",
            "short_side": None,
            **describe_network(network),
        }

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W); see `Estimator`."""
        (height, width), patch = first.shape[:2], self.network.config.patch_size
        margin = (0, -width % patch, 0, -height % patch)
        frames = [F.pad(frame, margin, mode="replicate") for frame in inputs_of(self.network, first, second)]
        source, target = (self.network.encode(frame).last for frame in frames)
        coarse = coarse_flow(matching_heatmaps(source.float(), target.float()), patch_size=patch)
        flow = F.interpolate(coarse, scale_factor=patch, mode="bilinear", align_corners=False)
        return flow[0, :, :height, :width].cpu().numpy()
