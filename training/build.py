"""From a configuration to the parts of a run: data, method, plan and probes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from midway_hub.training.config import RunConfig
from midway_hub.training.data.clip import ClipSource
from midway_hub.training.data.loader import ClipBatches
from midway_hub.training.data.sources import build_source
from midway_hub.training.data.synthetic import held_out_seeds, render_pairs
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.methods import Method, make_method
from midway_hub.training.plan import Plan, make_plan
from midway_hub.training.probes.held_out import held_out_pairs
from midway_hub.training.probes.protocol import Probe, Readable
from midway_hub.training.probes.suite import make_probes, run_probes


@dataclass(frozen=True)
class Parts:
    """What a run is made of, on one process.

    Attributes:
        plan: Derived numbers.
        method: What is trained.
        batches: What feeds it.
    """

    plan: Plan
    method: Method
    batches: ClipBatches


def build_method(config: RunConfig, plan: Plan) -> Method:
    """Make the method of a configuration, its weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    return make_method(
        config.method.name,
        config.method,
        config.model,
        plan.timeline,
        config.compat,
        views=config.views,
        lr_batch_size=plan.lr_batch_size,
    )


def open_source(config: RunConfig, *, index_cache: Path | None = None) -> ClipSource:
    """Open the source that gives what the method asks for; see `build_source`."""
    needs = config.needs
    return build_source(
        config.data, frames=needs.frames, flow=bool(needs.flow), seed=config.seed, index_cache=index_cache
    )


def build_parts(
    config: RunConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    index_cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> Parts:
    """Open the data and make everything that a run needs.

    Args:
        config: The run.
        rank: This process, from 0.
        world_size: All processes.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.
        index_cache: As for `build_source`.
        device: Where the run trains.

    Raises:
        ConfigError: The visits of a step cannot be shared by the processes.
        FileNotFoundError: There is nothing at `data.path`.
        ValueError: There is nothing there that can be read, or the architecture does not suit the method.
    """
    source = open_source(config, index_cache=index_cache)
    plan = make_plan(config, items=len(source), world_size=world_size)
    batches = ClipBatches(
        source,
        data=config.data,
        needs=config.needs,
        seed=config.seed,
        timeline=plan.timeline,
        rank=rank,
        world_size=world_size,
        accumulate=config.engine.accumulate,
        compat=config.compat,
        pin_memory=pin_memory,
        device=device,
    )
    return Parts(plan, build_method(config, plan), batches)


class Probing:
    """The configuration's probes as one of the engine's: held-out data is made when it is first needed.

    Args:
        config: The run.
    """

    name = "probe"

    def __init__(self, config: RunConfig) -> None:
        self.every = config.probes.every_steps
        self._config = config
        self._probes: dict[str, Probe] | None = None

    def __call__(self, trainable: Trainable) -> dict[str, float]:
        """Measure what is being trained."""
        network = cast(Readable, cast(Method, trainable).readable)
        if self._probes is None:
            self._probes = self._make(network.config.patch_size)
        return run_probes(self._probes, network)

    def _make(self, patch_size: int) -> dict[str, Probe]:
        settings = self._config.probes
        rendered = render_pairs(self._config.data.world, held_out_seeds(settings.worlds))
        pairs = held_out_pairs(rendered, size=settings.size, patch_size=patch_size)
        return make_probes(settings, pairs, patch_size=patch_size)
