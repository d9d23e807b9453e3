"""A tiny training job for the engine's tests: run in a process of its own, it can be killed, filled up or fed NaN."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from midway_hub.training.data.worker import start_worker
from midway_hub.training.engine import durable
from midway_hub.training.engine.loop import Outcome, train
from midway_hub.training.engine.processes import make_fabric
from midway_hub.training.engine.protocol import StepOutput, Trainable
from midway_hub.training.engine.settings import EngineSettings
from midway_hub.training.timeline import Timeline

PAIRS = 8  # per optimizer step, over all processes and micro-batches


@dataclass
class Job:
    """What a test asks of a run."""

    run_directory: str
    steps: int = 12
    engine: dict[str, Any] = field(default_factory=dict)
    width: int = 16
    dropout: float = 0.1
    workers: int = 0
    seconds_per_step: float = 0.0
    kill_at_step: int | None = None  # SIGKILL before this step
    kill_rank: int = 0
    worker_method: str = "fork"
    kill_writing_checkpoint: int | None = None  # SIGKILL while the n-th file of a checkpoint is written
    nan_steps: tuple[int, ...] = ()  # the input of process `nan_rank` is not finite then
    nan_rank: int = 0
    file_size_limit: int | None = None
    alike: bool = False

    def config(self) -> dict[str, Any]:
        model = {"width": self.width, "dropout": self.dropout}
        return {"engine": dict(self.engine), "model": model, "steps": self.steps}

    @property
    def folder(self) -> Path:
        return Path(self.run_directory)

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / f"checkpoints/step_{self.steps}"

    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def weights(self) -> dict[str, Tensor]:
        return safetensors.torch.load_file(self.last_checkpoint / "network.safetensors")

    def names(self, folder: str) -> set[str]:
        return {path.name for path in (self.folder / folder).iterdir()}


class Net(nn.Module):
    """A student with dropout, its moving average, and the moving mean of the teacher's output."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 4))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(4))
        self.gathered: list[Tensor] = []

    def train(self, mode: bool = True) -> Net:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> StepOutput:
        target = self.teacher(batch["x"])
        self.gathered.append(target.float().mean(0))
        predicted = self.student(batch["x"])
        match = (predicted - target + self.centre).square().mean()
        fit = (predicted - batch["y"]).square().mean()
        return StepOutput({"match": match, "fit": fit}, {"spread": predicted.detach().std()})


class TinyTask(Trainable):
    def __init__(self, job: Job) -> None:
        torch.manual_seed(1)
        self.job = job
        self.network: Net = Net(job.width, job.dropout)
        self.calls: list[str] = []

    def make_optimizer(self) -> torch.optim.Optimizer:
        group = {"params": list(self.network.student.parameters()), "name": "student"}
        return torch.optim.AdamW([group], lr=0.01, weight_decay=0.1)

    def schedule(self, optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
        rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
        if step == self.job.kill_at_step and rank == self.job.kill_rank:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.job.seconds_per_step)
        self.calls.append("schedule")
        rate = 0.01 * (1 - step / self.job.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return {"lr": rate}

    def before_update(self, step: int) -> dict[str, Tensor]:
        norms = [nn.utils.clip_grad_norm_(parameter, 1.0) for parameter in self.network.student.parameters()]
        return {"student_norm": torch.stack(norms).mean()}

    def after_update(self, step: int) -> None:
        self.calls.append("after_update")
        centre = torch.stack(self.network.gathered).mean(0).detach()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(centre)
            centre /= torch.distributed.get_world_size()
        self.network.centre.lerp_(centre, 0.1)
        self.network.gathered.clear()
        with torch.no_grad():
            for kept, new in zip(self.network.teacher.parameters(), self.network.student.parameters(), strict=True):
                kept.lerp_(new, 0.05)

    def after_rejection(self, step: int) -> None:
        self.calls.append("after_rejection")
        self.network.gathered.clear()

    def export(self) -> Any:
        raise NotImplementedError


class _Numbers(Dataset):
    """Micro-batches by number: slices of an optimizer step's samples, which no count of processes changes."""

    def __init__(self, batches: TinyBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.batches.make(number)


def _start_worker(folder: Path, worker: int) -> None:
    (folder / f"worker_{os.getpid()}").touch()
    start_worker(worker)


class TinyBatches:
    def __init__(self, job: Job, *, rank: int, size: int, accumulate: int) -> None:
        self.job, self.rank, self.size, self.accumulate = job, rank, size, accumulate

    def make(self, number: int) -> dict[str, Tensor]:
        step, micro = divmod(number, self.accumulate)
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.randn(PAIRS, 6, generator=generator).chunk(self.accumulate * self.size)[micro * self.size + self.rank]
        y = x[:, :4].sin()
        if step in self.job.nan_steps and self.rank == self.job.nan_rank:
            y = y * float("nan")
        return {"x": x, "y": y}

    def iterate(self, first: int, last: int) -> Any:
        loader = DataLoader(
            _Numbers(self),
            batch_size=None,
            sampler=range(first, last),
            num_workers=self.job.workers,
            worker_init_fn=functools.partial(_start_worker, self.job.folder),
        )
        yield from loader

    def finish(self, batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "tiny", "pairs": PAIRS}

    def rejected(self) -> list[dict[str, str]]:
        return [{"file": f"bad_{self.rank}.mp4", "reason": "no frames"}]


def run(job: Job, *, probes: Any = (), keep: Any = None, may_change: tuple[str, ...] = ()) -> tuple[Outcome, TinyTask]:
    """Run a job in this process."""
    settings = EngineSettings(**{"accelerator": "cpu", "progress": False, **job.engine})
    fabric = make_fabric(settings)
    if job.kill_writing_checkpoint is not None:
        _die_while_writing(job.kill_writing_checkpoint)
    if job.file_size_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_size_limit, resource.RLIM_INFINITY))
    task = TinyTask(job)
    batches = TinyBatches(job, rank=fabric.global_rank, size=fabric.world_size, accumulate=settings.accumulate)
    outcome = train(
        task,
        batches,
        settings,
        Path(job.run_directory),
        fabric=fabric,
        timeline=Timeline(steps=job.steps, steps_per_epoch=5, batch_size=PAIRS, visits_per_step=PAIRS),
        config=job.config(),
        seed=3,
        alike=job.alike,
        probes=probes,
        keep=keep,
        may_change=may_change,
    )
    return outcome, task


def _die_while_writing(number: int) -> None:
    from midway_hub.training.engine import checkpoint

    count = 0

    def write_half(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == number:
            path.write_bytes(bytes(data[: len(data) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        durable.write_bytes(path, data)

    checkpoint.write_bytes = write_half


def child(job: Job, environment: dict[str, str], errors: str) -> None:
    """Run a job as a process of its own; what it says goes to a file."""
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    torch.set_num_threads(1)
    # By the method inherited from `_context`, loader workers would each import torch anew.
    multiprocessing.set_start_method(job.worker_method, force=True)
    outcome, _ = run(job)
    sys.exit(outcome.exit_code)


class Started:
    """The processes of a job that was started, as torchrun would: forked from a server that has torch loaded."""

    all: ClassVar[list[Started]] = []

    def __init__(self, job: Job, size: int = 1) -> None:
        self._errors = [Path(f"{job.run_directory}.{rank}.err") for rank in range(size)]
        environments: list[dict[str, str]] = [{}]
        if size > 1:
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "TORCHELASTIC_RUN_ID": "test"}
            common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
            environments = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
        context = _context()
        self.processes = [
            context.Process(target=child, args=(job, environment, str(errors)))
            for environment, errors in zip(environments, self._errors, strict=True)
        ]
        for process in self.processes:
            process.start()
        self.all.append(self)

    def wait(self, seconds: float = 60.0) -> list[int]:
        """Return the exit codes; a process that does not end in time is an error."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [process for process in self.processes if process.exitcode is None]
        for process in hanging:
            process.kill()
            process.join()
        if hanging:
            raise TimeoutError(f"{len(hanging)} of {len(self.processes)} did not end in {seconds} s: {self.said()}")
        return [process.exitcode for process in self.processes if process.exitcode is not None]

    def signal(self, number: int, rank: int | None = None) -> None:
        """Signal one process, or all."""
        for process in self.processes if rank is None else [self.processes[rank]]:
            if process.pid and process.exitcode is None:
                os.kill(process.pid, number)

    def said(self, rank: int = 0) -> str:
        """Return what a process wrote to stderr."""
        return self._errors[rank].read_text()


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """End what a failed test left running: pytest would wait for it at its end."""
    yield
    for started in Started.all:
        started.signal(signal.SIGKILL)
    Started.all.clear()


def wait_for_step(run_directory: Path, step: int, *, seconds: float = 60.0) -> None:
    """Wait until a run's heartbeat has reached a step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, KeyError):
            if json.loads((run_directory / "run.json").read_text())["heartbeat"]["step"] >= step:
                return
        time.sleep(0.005)
    raise TimeoutError(f"step {step} was not reached in {seconds} s")


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine_job"])
    before = dict(os.environ)
    os.environ |= {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    multiprocessing.forkserver.ensure_running()
    os.environ.clear()
    os.environ |= before
    return context


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    torch.set_num_threads(1)
    outcome, _ = run(Job(**json.loads(sys.argv[1])))
    sys.exit(outcome.exit_code)


def command(job: Job) -> list[str]:
    """Return the command line that runs a job."""
    return [str(Path(__file__)), json.dumps(asdict(job))]


if __name__ == "__main__":
    main()
