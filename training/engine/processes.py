"""The processes of a run: how they start, and what they do together besides gradients."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import SLURMEnvironment
from lightning_fabric.strategies import DDPStrategy

from midway_hub.devices import checked_device
from midway_hub.training.engine.settings import EngineSettings

T = TypeVar("T")

_PATIENCE = timedelta(days=2)


class RankZeroError(RuntimeError):
    """What the first process was asked to do for all failed there."""


class Autocast(MixedPrecision):
    """Mixed precision that leaves the inputs alone.

    Fabric's casts every floating input to 16 bits; flow targets of hundreds of pixels would lose whole pixels.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the inputs as they are: autocast casts what each operation takes."""
        return data


def make_fabric(settings: EngineSettings) -> Fabric:
    """Choose devices and precision, and start the processes.

    Under torchrun or srun the processes are there already. Without either, and with several devices, this starts the
    others: they run the same command line and return from here as well, each with its `fabric.global_rank`.

    Returns:
        A launched Fabric: `device`, `global_rank`, `world_size`, `is_global_zero`.

    Raises:
        ValueError: The devices or nodes asked for are not those that the launcher started, or not there.
    """
    accelerator = choose_accelerator(settings)
    checked_device(accelerator)
    devices, nodes = _size(settings, accelerator)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    strategy: Any = "auto"
    if settings.strategy == "ddp" or devices * nodes > 1:
        # Buffers that a method gathers in over micro-batches are each process's own until it adds them up itself.
        strategy = DDPStrategy(timeout=timedelta(minutes=settings.process_timeout_minutes), broadcast_buffers=False)
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=None if settings.precision == "fp32" else [_mixed_precision(settings, accelerator)],
    )
    fabric.launch()
    return fabric


class Together:
    """What processes do in step over the CPU; with a single process each call is just done.

    One that died is noticed at once, as its connections close; one that hangs after the timeout.

    Args:
        fabric: Launched.
        settings: Has the timeout.
    """

    def __init__(self, fabric: Fabric, settings: EngineSettings) -> None:
        self.rank, self.size = fabric.global_rank, fabric.world_size
        timeout = timedelta(minutes=settings.process_timeout_minutes)
        self._group = dist.new_group(backend="gloo", timeout=timeout) if self.size > 1 else None
        self._patient_group = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.size > 1 else None

    def on_rank_zero(self, task: Callable[[], T], *, patient: bool = False) -> T:
        """Run a task in the first process only, and return its (small) result in all.

        Args:
            task: What to do.
            patient: It may take longer than the timeout: two days.

        Raises:
            Exception: In the first process, what the task raised; in the others, `RankZeroError` with its text.
        """
        if self.size == 1:
            return task()
        box: list[Any] = [None, None]
        failure: Exception | None = None
        if self.rank == 0:
            try:
                box[0] = task()
            except Exception as error:
                failure, box[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(box, src=0, group=self._patient_group if patient else self._group)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise RankZeroError(f"the first process failed: {box[1]}")
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values


def choose_accelerator(settings: EngineSettings) -> str:
    """Return the kind of device that a run uses: cpu, cuda or mps."""
    if settings.accelerator != "auto":
        return settings.accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def processes_wanted(settings: EngineSettings) -> int:
    """Return how many processes a run has, on all nodes."""
    devices, nodes = _size(settings, choose_accelerator(settings))
    return devices * nodes


def _size(settings: EngineSettings, accelerator: str) -> tuple[int, int]:
    started = _started_by_launcher()
    alone = torch.cuda.device_count() if accelerator == "cuda" else 1
    devices, nodes = started or (alone, 1)
    return (
        devices if settings.devices == "auto" else settings.devices,
        nodes if settings.nodes == "auto" else settings.nodes,
    )


def _started_by_launcher() -> tuple[int, int] | None:
    if dist.is_available() and dist.is_torchelastic_launched():
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node
    if SLURMEnvironment.detect():
        nodes = int(os.environ["SLURM_NNODES"])
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


def _mixed_precision(settings: EngineSettings, accelerator: str) -> Autocast:
    return Autocast("16-mixed" if settings.precision == "fp16" else "bf16-mixed", accelerator)
