"""The probes that a configuration asks for, over held-out data that is made once."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import torch

from midway_hub.training.probes.coarse_flow import CoarseFlowProbe
from midway_hub.training.probes.dense import DenseProbe, LabelledFrames
from midway_hub.training.probes.held_out import HeldOutPairs
from midway_hub.training.probes.labelled_folder import read_labelled_folder
from midway_hub.training.probes.prediction import PredictionProbe
from midway_hub.training.probes.protocol import Probe, Readable
from midway_hub.training.probes.rank import RankProbe
from midway_hub.training.probes.settings import ProbeSettings

logger = logging.getLogger("midway_hub")


def make_probes(settings: ProbeSettings, pairs: HeldOutPairs, *, patch_size: int = 16) -> dict[str, Probe]:
    """Return the probes that are switched on, by name.

    Args:
        settings: Which, and on how much.
        pairs: Held-out frame pairs, of which the first `settings.worlds` serve.
        patch_size: Side of the network's patches in pixels.

    Raises:
        FileNotFoundError: A folder of labelled images is missing.
        ValueError: It holds no image with labels.
    """
    pairs, batch_size = pairs.first(settings.worlds), settings.batch_size
    probes: dict[str, Probe] = {}
    if settings.coarse_flow:
        probes["coarse_flow"] = CoarseFlowProbe(
            pairs,
            perturbation_pairs=settings.perturbation_worlds,
            draws=settings.perturbation_draws,
            batch_size=batch_size,
        )
    if settings.prediction:
        probes["prediction"] = PredictionProbe(pairs, batch_size=batch_size)
    if settings.rank:
        probes["rank"] = RankProbe(pairs, batch_size=batch_size)
    if settings.dense:
        if settings.images is None or settings.labels is None:
            labelled = LabelledFrames(frames=pairs.source, labels=pairs.labels)
        else:
            labelled = read_labelled_folder(settings.images, settings.labels, size=settings.size, patch_size=patch_size)
        probes["dense"] = DenseProbe(labelled, neighbours=settings.neighbours, batch_size=batch_size)
    return probes


@torch.no_grad()
def run_probes(probes: Mapping[str, Probe], network: Readable) -> dict[str, float]:
    """Take every measurement, in eval mode; the modes of the network's modules are put back.

    Returns:
        What the probes found, and `NAME/seconds` that each took.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    found: dict[str, float] = {}
    try:
        for name, probe in probes.items():
            started = time.perf_counter()
            found.update(probe(network))
            found[f"{name}/seconds"] = time.perf_counter() - started
            logger.debug("probe %s took %.1f s", name, found[f"{name}/seconds"])
    finally:
        for module, mode in modes.items():
            module.training = mode
    return found
