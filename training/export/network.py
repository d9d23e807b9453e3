"""From a checkpoint of a run to a folder that `MidwayNetwork.from_pretrained` loads."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from midway_hub import MidwayNetwork
from midway_hub._durable import need_empty, sync
from midway_hub.encoders import load_encoder
from midway_hub.training.engine.checkpoint import BEST, CheckpointError, verify
from midway_hub.training.engine.protocol import Trainable
from midway_hub.training.export.card import write_card
from midway_hub.training.report.record import RunRecord, read_run
from midway_hub.verify import GOLDEN, save_golden
from midway_hub.verify import verify as verify_network

_log = logging.getLogger("midway_hub")


@dataclass(frozen=True)
class _Best:
    facts: dict[str, Any]
    network: dict[str, Tensor]


Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES = ("float32", "float16", "bfloat16")
SIDE = 64


class ExportError(RuntimeError):
    """A run cannot be exported; the message says what is missing or wrong."""


def export_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    build: Callable[[dict[str, Any]], Trainable],
    step: int | None = None,
    dtype: Dtype = "float32",
    licence: str | None = None,
    name: str | None = None,
    command: str | None = None,
    best: bool = False,
    finish: Callable[[Any], Any] = lambda network: network,
) -> Path:
    """Write a run's weights as a network of the hub, with processor, golden outputs and a card.

    The folder is made beside its place, loaded strictly, its outputs compared, and only then moved there. The run may
    still be going on: nothing of it is changed.

    Args:
        run_dir: The run directory.
        out: Folder to write; it must not hold anything yet.
        build: Makes the method from the run's configuration (`config.yaml` as plain values).
        step: Which checkpoint; by default the newest whole one.
        dtype: Of the weights in the file.
        licence: SPDX name of the weights' licence, such as `"cc-by-4.0"`, for the card; by default none is stated.
        name: What the card calls the network; by default the name of `out`.
        command: The command that the run was made with, for the card; by default put together from the configuration.
        finish: What is done to the network before it is written, such as giving it heads of other runs.
        best: Take the best weights that the run has kept (`evaluation.keep_best`) instead of the last ones.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` holds files already.
        FileNotFoundError: `run_dir` is no run directory.
        ExportError: There is no whole checkpoint, it does not fit the configuration or holds no best weights where
            those are wanted, or the written network does not do what the trained one does.
        ValueError: There is no such dtype, or both `step` and `best` are given.
    """
    out = Path(out)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if best and step is not None:
        raise ValueError(f"the best weights are of one step, and step {step} is wanted as well: leave out one of them")
    need_empty(out)
    record = read_run(run_dir)
    if not record.config:
        raise ExportError(f"{record.directory} cannot be exported: {'; '.join(record.unreadable)}")
    step, state = _weights(record, step)
    chosen = _best(record, step) if best else None
    if chosen is not None:
        step, state = chosen.facts["step"], chosen.network
    trained = finish(_restored(build(record.config), state, record.directory))
    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        _write(trained.to(getattr(torch, dtype)), beside)
        write_card(
            beside,
            record,
            step=step,
            licence=licence,
            name=name or out.name,
            command=command,
            best=None if chosen is None else chosen.facts,
        )
        _check(beside)
        _sync_all(beside)
        if out.exists():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    _log.info("step %d of %s is in %s", step, record.directory, out)
    return out


def set_export_aside(run_dir: Path) -> None:
    """Give what a run exported the name of its step, `export_step_N`, before the run goes on for longer."""
    export, steps = run_dir / "export", checkpoint_steps(run_dir)
    if export.exists() and steps:
        aside = run_dir / f"export_step_{steps[-1]}"
        export.rename(aside)
        _log.info("the weights of step %d are in %s", steps[-1], aside)


def checkpoint_steps(run_dir: str | Path) -> list[int]:
    """Return the steps that a run has a checkpoint of, in order."""
    folder = Path(run_dir) / "checkpoints"
    names = (path.name.removeprefix("step_") for path in folder.glob("step_*"))
    return sorted(int(name) for name in names if name.isdigit())


def _weights(record: RunRecord, step: int | None) -> tuple[int, dict[str, Tensor]]:
    """Step and network state of the checkpoint asked for, or of the newest whole one."""
    there, wrong = checkpoint_steps(record.directory), []
    if step is not None and step not in there:
        raise ExportError(f"{record.directory} has no checkpoint of step {step}; there are: {there or 'none'}")
    for candidate in [step] if step is not None else reversed(there):
        folder = record.directory / "checkpoints" / f"step_{candidate}"
        try:
            verify(folder)
            return candidate, safetensors.torch.load_file(folder / "network.safetensors")
        except (CheckpointError, OSError) as error:
            wrong.append(str(error))
            _log.warning("%s", error)
    raise ExportError(f"{record.directory} has no whole checkpoint: {'; '.join(wrong) or 'there is none'}")


def _best(record: RunRecord, step: int) -> _Best:
    """The best weights that the whole checkpoint of a step holds."""
    folder = record.directory / "checkpoints" / f"step_{step}"
    facts = json.loads((folder / "engine.json").read_text(encoding="utf-8")).get("best")
    if facts is None:
        raise ExportError(
            f"{folder} holds no best weights: the run kept none. Start it with evaluation.keep_best=flow/epe (or "
            "another number that it measures) and evaluation.every_steps=N"
        )
    return _Best(facts, safetensors.torch.load_file(folder / BEST))


def _restored(trainable: Trainable, state: dict[str, Tensor], run_dir: Path) -> PreTrainedModel:
    try:
        trainable.network.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(f"the checkpoint of {run_dir} does not fit its config.yaml: {error}") from error
    exported = trainable.export()
    broken = [key for key, value in exported.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ExportError(f"the weights of {run_dir} are not finite: {', '.join(broken[:5])}; export an earlier step")
    return exported


def _write(network: PreTrainedModel, folder: Path) -> None:
    network.save_pretrained(folder)
    if isinstance(network, MidwayNetwork):
        save_golden(MidwayNetwork.from_pretrained(folder), folder)
    else:
        save_file({"features": _features(network)}, folder / GOLDEN, metadata={"format": "pt"})


@torch.no_grad()
def _features(network: Any) -> Tensor:
    """What an encoder says of a picture that never changes, float32 on the CPU."""
    picture = torch.linspace(-2, 2, 3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE)
    return network.float().encode(picture).last.contiguous()


def _check(folder: Path) -> None:
    loaded = load_encoder(folder)
    if not isinstance(loaded, MidwayNetwork):
        stored = safetensors.torch.load_file(folder / GOLDEN)["features"]
        if not torch.allclose(_features(loaded), stored, rtol=1e-3, atol=1e-4):
            raise ExportError("the exported encoder does not give the features of the one that was trained")
        return
    failed = [f"{check.name}: {check.detail}" for check in verify_network(folder) if check.passed is False]
    if failed:
        raise ExportError(f"the exported network does not pass its checks: {'; '.join(failed)}")


def _sync_all(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        sync(path)
