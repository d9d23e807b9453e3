"""From a configuration to the parts of a run: data, method, plan and probes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from midway_hub import MidwayConfig
from midway_hub.training.config import RunConfig
from midway_hub.training.data.loader import PairBatches
from midway_hub.training.data.sources import build_source
from midway_hub.training.data.synthetic import held_out_seeds, render_pairs
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.methods import METHODS, Method, make_method
from midway_hub.training.plan import Plan, make_plan
from midway_hub.training.probes.held_out import held_out_pairs
from midway_hub.training.probes.protocol import Probe
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
    batches: PairBatches


def build_method(config: RunConfig, plan: Plan) -> Method:
    """Make the method of a configuration, its weights drawn from the run's seed."""
    torch.manual_seed(config.seed)
    return make_method(
        config.method.name, config.method, config.model, plan.timeline, config.compat, lr_batch_size=plan.lr_batch_size
    )


def build_parts(
    config: RunConfig,
    *,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    index_cache: Path | None = None,
) -> Parts:
    """Open the data and make everything that a run needs.

    Args:
        config: The run.
        rank: This process, from 0.
        world_size: All processes.
        pin_memory: Prepare micro-batches for asynchronous copies to a GPU.
        index_cache: As for `build_source`.

    Raises:
        ConfigError: The visits of a step cannot be shared by the processes.
        FileNotFoundError: There is nothing at `data.path`.
        ValueError: There is nothing there that can be read, or the architecture does not suit the method.
    """
    source = build_source(config.data, seed=config.seed, index_cache=index_cache)
    plan = make_plan(config, items=len(source), world_size=world_size)
    batches = PairBatches(
        source,
        data=config.data,
        views=config.views,
        groups=METHODS[config.method.name].views,
        seed=config.seed,
        timeline=plan.timeline,
        rank=rank,
        world_size=world_size,
        accumulate=config.engine.accumulate,
        compat=config.compat,
        pin_memory=pin_memory,
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
        if self._probes is None:
            self._probes = self._make()
        return run_probes(self._probes, cast(Method, trainable).network.model)

    def _make(self) -> dict[str, Probe]:
        settings, model = self._config.probes, MidwayConfig(**self._config.model)
        rendered = render_pairs(self._config.data.world, held_out_seeds(settings.worlds))
        pairs = held_out_pairs(rendered, size=settings.size, patch_size=model.patch_size)
        return make_probes(settings, pairs, patch_size=model.patch_size)
