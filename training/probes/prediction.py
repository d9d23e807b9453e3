"""How well the dynamics predict the target frame's features, beside predicting that nothing moves."""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.training.probes.held_out import HeldOutPairs


class PredictionProbe:
    """Dense prediction error 2 - 2·cos, mean over patches, per level l.

    `prediction/level_l/error` is the network's; `/trivial` that of the teacher's features of the *source* frame taken
    as prediction; `/other_motion` the network's when it is given the motion latents of another pair, which tells what
    the latents are worth; `/other_source` with its own latents on the source frame of another pair: where that is
    still better than standing still, latents carry the target's contents beside how the source moves;
    `/error_over_trivial` the ratio, below 1 where the dynamics know more than standing still.

    Args:
        pairs: Held-out frame pairs, at least 2.
        batch_size: Pairs through the network at once.
    """

    def __init__(self, pairs: HeldOutPairs, *, batch_size: int = 16) -> None:
        self.pairs = pairs
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, network: MidwayNetwork) -> dict[str, float]:
        if not network.config.dynamics:
            return {}
        sums: dict[str, float] = defaultdict(float)
        others = self.pairs.map(lambda tensor: tensor.roll(1, dims=0))
        batches = (pairs.batches(self.batch_size, network.device) for pairs in (self.pairs, others))
        for batch, other in zip(*batches, strict=True):
            for name, errors in self._errors(network, batch, other).items():
                sums[name] += errors.double().sum().item()
        means = {name: total / len(self.pairs) for name, total in sums.items()}
        for level in network.config.levels:
            name = f"prediction/level_{level}"
            means[f"{name}/error_over_trivial"] = means[f"{name}/error"] / max(means[f"{name}/trivial"], 1e-12)
        return means

    def _errors(self, network: MidwayNetwork, pairs: HeldOutPairs, others: HeldOutPairs) -> dict[str, Tensor]:
        """Errors per pair, (B,); `others` lend their motion."""
        levels = network.config.levels
        motion = network.infer_motion(pairs.source, pairs.target)
        swapped = network.predict(pairs.source, network.infer_motion(others.source, others.target))
        on_another = network.predict(others.source, motion)
        source, target = (
            network.encode(frames, layers=levels, output_format="tokens").layers
            for frames in (pairs.source, pairs.target)
        )
        found = {}
        for index, level in enumerate(levels):
            guesses = {"error": motion.predicted[index], "trivial": source[index], "other_motion": swapped[index]}
            guesses["other_source"] = on_another[index]
            for name, guess in guesses.items():
                found[f"prediction/level_{level}/{name}"] = prediction_error(guess, target[index])
        return found


def prediction_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance of unit vectors, 2 - 2·cos, mean over patches.

    Args:
        predicted: (B, 1+N, D); the CLS token, first, does not count.
        target: (B, 1+N, D).

    Returns:
        (B,), between 0 and 4.
    """
    return (2 - 2 * F.cosine_similarity(predicted[:, 1:], target[:, 1:], dim=-1)).mean(dim=1)
