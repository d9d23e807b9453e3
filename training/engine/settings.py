"""How a run is carried out: hardware, precision, checkpoints, logs and when to give up."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from midway_hub.training.settings import Settings


class EngineSettings(Settings):
    """Everything about carrying out a run that does not say what is learned."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where tensors live; `auto` takes CUDA, then MPS, then the CPU."""

    devices: PositiveInt | Literal["auto"] = "auto"
    """Processes per node, one device each; `auto` is what torchrun or Slurm started, else every GPU, else one."""

    nodes: PositiveInt | Literal["auto"] = "auto"
    """Machines; `auto` is what torchrun or Slurm started, else one."""

    strategy: Literal["auto", "ddp"] = "auto"
    """`ddp` wraps the network for several processes even where there is one."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass (autocast); weights stay fp32, and fp16 scales its loss."""

    accumulate: PositiveInt = 1
    """Micro-batches per optimizer step and process. Their gradients' mean is that of the whole batch where nothing is
    drawn or measured per micro-batch: drop path and dropout are drawn anew for each, and BatchNorm (in UperNet) takes
    each one's own mean and variance."""

    compile: bool | Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = False
    """Compile the network's forward pass with torch.compile, in its default or in the named mode."""

    deterministic: bool = False
    """Take torch's deterministic algorithms only; on a GPU slower, and needed there for bit-equal resumed runs."""

    checkpoint_every_steps: PositiveInt | None = None
    """Save whenever this many optimizer steps are done."""

    checkpoint_every_minutes: PositiveFloat | None = 30.0
    """Save when this much time went by since the last checkpoint."""

    keep_last: PositiveInt = 2
    """Newest checkpoints that stay; with two or more there is one to fall back to."""

    keep_every_steps: PositiveInt | None = None
    """Checkpoints at multiples of this many steps stay for good."""

    log_every: PositiveInt = 50
    """Optimizer steps between two lines of `metrics.jsonl`, each the mean over the steps between."""

    heartbeat_seconds: PositiveFloat = 30.0
    """How often `run.json` says that the run is alive, and at which step."""

    process_timeout_minutes: PositiveFloat = 30.0
    """How long a process waits for another one in a collective operation before it gives up."""

    max_bad_steps: PositiveInt = 10
    """Stop after this many steps in a row with a loss or gradient that is not finite."""

    max_bad_total: PositiveInt = 1000
    """Stop after this many such steps in the whole run."""

    saved_incidents: NonNegativeInt = 3
    """Steps that were not finite whose batch and random state are kept under `incidents/`."""

    collapse_patience_steps: PositiveInt = 2000
    """Warn when a loss sat at its value of collapse for this many steps."""

    progress: bool = True
    """Show a progress bar on a terminal, or lines in the log elsewhere."""

    tensorboard: bool = False
    """Write TensorBoard events under `tensorboard/` too."""

    wandb: str | None = None
    """Weights & Biases project to log to as well; none by default."""


MAY_CHANGE = tuple(
    f"engine.{name}"
    for name in (
        "accelerator",
        "devices",
        "nodes",
        "strategy",
        "accumulate",
        "compile",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "keep_last",
        "keep_every_steps",
        "log_every",
        "heartbeat_seconds",
        "process_timeout_minutes",
        "max_bad_steps",
        "max_bad_total",
        "saved_incidents",
        "collapse_patience_steps",
        "progress",
        "tensorboard",
        "wandb",
    )
)
"""Keys of the configuration that a resumed run may change: they do not say what is computed. With another hardware or
number of processes a run goes on from the same weights and samples, but sums round differently."""
