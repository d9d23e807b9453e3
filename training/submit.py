"""Training as a job of a Slurm cluster, through submitit: saved before its time is up, queued again, and going on."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from midway_hub._extras import how_to_install
from midway_hub.training.engine.interrupt import EXIT_CODE

if TYPE_CHECKING:
    from submitit import Job

Cluster = Literal["slurm", "local"]


class SubmitError(RuntimeError):
    """A job cannot be submitted from here; the message says what to do instead."""


@dataclass(frozen=True)
class Resources:
    """What a job asks the cluster for.

    Attributes:
        nodes: Machines.
        processes: Training processes on every node, each with a GPU of its own if `gpus` is set.
        gpus: Whether every process gets a GPU.
        cpus: CPU cores of every process: its data workers and one more.
        hours: Longest time that one submission may take; the run is saved and queued again before it is over.
        memory_gb: Memory of every node; by default the cluster's own rule.
        partition, account, qos, constraint: As Slurm calls them.
        save_seconds: How long before the end of its time the run is told to save itself.
        name: Name of the job.
    """

    nodes: int = 1
    processes: int = 1
    gpus: bool = True
    cpus: int = 8
    hours: float = 24.0
    memory_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    save_seconds: int = 180
    name: str = "midway"

    def __post_init__(self) -> None:
        for field in ("nodes", "processes", "cpus"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} of a job must be at least 1, got {getattr(self, field)}")
        if not 0 < self.save_seconds < 3600 * self.hours:
            raise ValueError(
                f"save_seconds must lie between 0 and the job's {3600 * self.hours:g} s, got {self.save_seconds}"
            )


@dataclass(frozen=True)
class TrainingJob:
    """What every process of a job does: become `python -m midway_hub.training ...`.

    The process is replaced, so signals reach the training itself and its exit code is the job's.

    Attributes:
        arguments: Of the command.
    """

    arguments: tuple[str, ...]

    def __call__(self) -> None:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-u", "-m", "midway_hub.training", *self.arguments])


def submit(
    arguments: Sequence[str], *, run_dir: str | Path, resources: Resources, cluster: Cluster = "slurm"
) -> Job[None]:
    """Submit a training run.

    Args:
        arguments: Of `python -m midway_hub.training`, such as `("pretrain", "smoke", "--run-dir", ...)`: a command that
            goes on with a run that is there, because a job that was queued again gives it again. It must ask for
            `resources.nodes` nodes and `resources.processes` devices on each.
        run_dir: The run directory; logs and the script go to `slurm/` in it. All nodes must see it.
        resources: What to ask for.
        cluster: `"slurm"`, or `"local"` for processes on this machine, which outlive this one.

    Returns:
        submitit's job: `.job_id`, `.paths.stdout`.

    Raises:
        SubmitError: submitit is not installed, or there is no Slurm here.
        ValueError: There is no such cluster.
    """
    submitit = _submitit()
    if cluster not in ("slurm", "local"):
        raise ValueError(f"cluster must be 'slurm' or 'local', got {cluster!r}")
    try:
        executor = submitit.AutoExecutor(_log_folder(run_dir), cluster=cluster)
    except RuntimeError as error:
        raise SubmitError(
            f"there is no Slurm on this machine ({error}); run this on a login node of the cluster, look at the script "
            "with --dry-run, or start here with --cluster local"
        ) from error
    executor.update_parameters(**executor_parameters(resources))
    return executor.submit(TrainingJob(tuple(arguments)))


def sbatch_script(run_dir: str | Path, resources: Resources) -> str:
    """Write the script that `submit` would hand to `sbatch`; needs no Slurm on this machine.

    Raises:
        SubmitError: submitit is not installed.
    """
    _submitit()
    from submitit.slurm.slurm import SlurmExecutor

    class Anywhere(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # submitit refuses to describe a job where there is no srun

        def script(self) -> str:
            return self._make_submission_file_text(self._submitit_command_str, "")

    executor = Anywhere(_log_folder(run_dir))
    parameters = executor_parameters(resources)
    own = {name.removeprefix("slurm_"): value for name, value in parameters.items() if name.startswith("slurm_")}
    shared = {name: value for name, value in parameters.items() if not name.startswith(("slurm_", "local_"))}
    executor._internal_update_parameters(**executor._convert_parameters(shared), **own)
    return executor.script()


def executor_parameters(resources: Resources) -> dict[str, Any]:
    """Return what submitit's `AutoExecutor` is told.

    On Slurm one task per process, as Lightning Fabric wants it (`ntasks-per-node` equal to its devices); every task
    sees all GPUs of its node and takes the one of its local rank. On this machine one task, which starts the others
    itself. The run is asked by SIGUSR1 to save itself; when it leaves with the code that says so, the script puts the
    job back into the queue.
    """
    queue_again = f'if [ "$code" -eq {EXIT_CODE} ]; then scontrol requeue "$SLURM_JOB_ID"; fi'
    wanted = {
        "name": resources.name,
        "nodes": resources.nodes,
        "tasks_per_node": resources.processes,
        "gpus_per_node": resources.processes if resources.gpus else None,
        "cpus_per_task": resources.cpus,
        "timeout_min": max(1, round(60 * resources.hours)),
        "mem_gb": resources.memory_gb,
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_qos": resources.qos,
        "slurm_constraint": resources.constraint,
        "slurm_additional_parameters": {"signal": f"USR1@{resources.save_seconds}", "requeue": True},
        "slurm_srun_args": [f"--cpus-per-task={resources.cpus}"],  # srun does not take it from sbatch any more
        "slurm_teardown": ["code=$?", queue_again, 'exit "$code"'],
        "local_tasks_per_node": 1,
        "local_setup": ["export SUBMITIT_PREEMPT_SIGNAL=USR1"],  # else it is USR2, 30 s before the time is up
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _log_folder(run_dir: str | Path) -> str:
    return str(Path(run_dir).absolute() / "slurm" / "%j")


def _submitit() -> Any:
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise SubmitError(f"submitting needs submitit: {how_to_install('submitit')}") from error
    return submitit
