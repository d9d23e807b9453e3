"""Effective rank of features: how many directions they use, falling towards 1 as they collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub.training.probes.held_out import HeldOutPairs
from midway_hub.training.probes.protocol import Readable

MAX_PATCHES = 8192


class RankProbe:
    """Effective rank of the teacher's last features: `rank/cls` over frames, `rank/patches` over patches.

    Neither exceeds the feature width, nor the number of frames (for CLS) or patches.

    Args:
        pairs: Held-out frame pairs; both frames count.
        batch_size: Pairs through the encoder at once.
    """

    def __init__(self, pairs: HeldOutPairs, *, batch_size: int = 16) -> None:
        self.pairs = pairs
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, network: Readable) -> dict[str, float]:
        batches = self.pairs.batches(self.batch_size, network.device)
        features = [network.encode(torch.cat([batch.source, batch.target])) for batch in batches]
        patches = torch.cat([each.last.permute(0, 2, 3, 1).flatten(0, 2) for each in features])
        patches = patches[:: len(patches) // MAX_PATCHES + 1]
        return {
            "rank/cls": effective_rank(torch.cat([each.cls for each in features])),
            "rank/patches": effective_rank(patches),
        }


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the normalised singular values (Roy & Vetterli 2007; RankMe, Garrido et al. 2023).

    The features are not centred: identical features have rank 1 however small the noise on them.

    Args:
        features: (samples, D), finite.

    Returns:
        From 1 (all on one line, or all zero) to min(samples, D).
    """
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp().item()
