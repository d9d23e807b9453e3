"""Coarse flow without a flow head: by matching features and by perturbation peaks, against standing still."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.analysis.coarse_flow import coarse_flow
from midway_hub.analysis.flow_scores import flow_scores
from midway_hub.analysis.matching import matching_heatmaps
from midway_hub.analysis.perturbation import perturbation_heatmaps
from midway_hub.training.probes.held_out import HeldOutPairs


class CoarseFlowProbe:
    """End-point error and hit rates at patch centres that are visible in both frames.

    For every way w of reading motion (`zero`, `matching` of the teacher's last features, `level_l` for perturbation
    peaks at level l) it gives `coarse_flow/w/epe` in pixels, `/hit_0.5`, `/hit_1`, `/hit_2` (share of patches at most
    so many patches off) and `/epe_over_zero`, below 1 where it beats standing still. All ways are scored on the same
    pairs, the first `perturbation_pairs`; matching and zero motion on all pairs are under `coarse_flow/all/`.

    Args:
        pairs: Held-out frame pairs.
        perturbation_pairs: How many of them perturbation peaks are measured on; 0 leaves them out.
        draws: Random directions per patch.
        batch_size: Pairs through the encoder at once.
    """

    def __init__(
        self, pairs: HeldOutPairs, *, perturbation_pairs: int = 8, draws: int = 4, batch_size: int = 16
    ) -> None:
        self.pairs = pairs
        self.perturbation_pairs = min(perturbation_pairs, len(pairs))
        self.draws = draws
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, network: MidwayNetwork) -> dict[str, float]:
        batches = self.pairs.batches(self.batch_size, network.device)
        matched = torch.cat([_matching_flow(network, batch) for batch in batches])
        scores = self._scores({"all/zero": torch.zeros_like(matched), "all/matching": matched}, network)
        if network.config.dynamics and self.perturbation_pairs:
            some = matched[: self.perturbation_pairs]
            ways = {"zero": torch.zeros_like(some), "matching": some}
            ways.update({f"level_{level}": flow for level, flow in self._perturbation_flows(network)})
            scores.update(self._scores(ways, network))
        return scores

    def _perturbation_flows(self, network: MidwayNetwork) -> Iterator[tuple[int, Tensor]]:
        batches = list(self.pairs.first(self.perturbation_pairs).batches(1, network.device))
        motions = [network.infer_motion(pair.source, pair.target) for pair in batches]
        for level in network.config.levels:
            heatmaps = [perturbation_heatmaps(network, motion, level=level, draws=self.draws) for motion in motions]
            yield level, coarse_flow(torch.stack(heatmaps), patch_size=network.config.patch_size)

    def _scores(self, flows: dict[str, Tensor], network: MidwayNetwork) -> dict[str, float]:
        found: dict[str, float] = {}
        for way, flow in flows.items():
            truth = self.pairs.first(len(flow))
            measured = flow_scores(
                flow.cpu(), truth.flow.cpu(), valid=truth.visible.cpu(), patch_size=network.config.patch_size
            )
            found.update(measured.as_dict(f"coarse_flow/{way}/"))
        for way in flows:
            zero = "all/zero" if way.startswith("all/") else "zero"
            if way != zero:
                ratio = found[f"coarse_flow/{way}/epe"] / max(found[f"coarse_flow/{zero}/epe"], 1e-12)
                found[f"coarse_flow/{way}/epe_over_zero"] = ratio
        return found


def _matching_flow(network: MidwayNetwork, pairs: HeldOutPairs) -> Tensor:
    source, target = (network.encode(frames).last for frames in (pairs.source, pairs.target))
    return coarse_flow(matching_heatmaps(source, target), patch_size=network.config.patch_size)
