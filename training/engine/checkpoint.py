"""Checkpoints that are complete, verified and never the only ones at risk.

`checkpoints/step_N/` holds a run after N optimizer steps:

    network.safetensors    the state dict of the trainable's network
    optimizer.pt           the optimizer's state dict: tensors and plain values, read without running any pickle code
    engine.json            loss scale, counts of rejected steps, and of the best weights so far which they are
    best.safetensors       the best weights so far, where the run keeps them
    rank_R.safetensors     random state and running means of process R
    manifest.json          step, configuration, size and sha256 of each of the above
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from midway_hub._stored import read_json
from midway_hub.training.engine.configuration import Complete, differences, essential, refuse_changes
from midway_hub.training.engine.durable import as_disk_full, sync, write_bytes

_log = logging.getLogger("midway_hub")
_NAME = re.compile(r"step_(\d+)")
_MANIFEST = "manifest.json"
BEST = "best.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` optimizer steps, on the CPU.

    Attributes:
        step: Optimizer steps done.
        network: State dict of the network.
        optimizer: State dict of the optimizer.
        engine: Plain values of the loop.
        ranks: One dict of tensors per process.
        best: State dict of the best weights so far; empty where none are kept.
    """

    step: int
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    engine: dict[str, Any]
    ranks: list[dict[str, Tensor]]
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """The folder of a run's checkpoints; one process writes it.

    Args:
        folder: `checkpoints/` of a run directory.
        config: The configuration that the checkpoints belong to, as plain values.
        complete: Gives a configuration of before the keys that it did not have yet.
        keep_last: Newest checkpoints that stay.
        keep_every: Checkpoints at multiples of this step stay as well.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any],
        keep_last: int = 2,
        keep_every: int | None = None,
        complete: Complete = dict,
    ) -> None:
        self.folder = folder
        self._config, self._complete = config, complete
        self._keep_last = keep_last
        self._keep_every = keep_every

    def path(self, step: int) -> Path:
        """Return where the checkpoint after `step` steps lies."""
        return self.folder / f"step_{step}"

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        if not self.folder.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint beside its place, read it back, move it there, then let go of older ones.

        Returns:
            The checkpoint's folder.

        Raises:
            DiskFullError: It does not fit; what was written of it is gone and the checkpoints before are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.path(checkpoint.step)
        beside = place.with_name(f".{place.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir()
            self._write(beside, checkpoint)
            verify(beside)
            if place.exists():
                self._discard(place)
            beside.rename(place)
            sync(self.folder)
        except OSError as error:
            raise as_disk_full(error, self.folder) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._prune()
        return place

    def find_last(self, may_change: Iterable[str] = ()) -> tuple[int | None, list[str]]:
        """Return the newest step whose checkpoint is whole, and what was found wrong with newer ones.

        Damaged ones are renamed to `step_N.damaged`, for someone to look at.

        Args:
            may_change: Keys of the configuration in which a checkpoint may differ.

        Raises:
            CheckpointError: There are checkpoints but none is whole.
            ConfigurationChangedError: The newest whole one was made with another configuration.
        """
        self._clear_leftovers()
        steps = self.steps()
        wrong = []
        for step in reversed(steps):
            try:
                manifest = verify(self.path(step))
            except CheckpointError as error:
                wrong.append(str(error))
                _log.error("%s; falling back to the checkpoint before", error)
                continue
            changed = essential(differences(self._complete(manifest["config"]), self._config), may_change)
            refuse_changes(changed, what="configuration", where=str(self.path(step)))
            self._set_aside(newer_than=step)
            return step, wrong
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(wrong)}. Bring one back from a backup, or remove "
                "the folder to start from the beginning"
            )
        return None, wrong

    def load(self, step: int) -> Checkpoint:
        """Return the checkpoint after `step` steps, which `find_last` has verified."""
        place = self.path(step)
        best = place / BEST
        ranks = sorted(place.glob("rank_*.safetensors"), key=lambda path: int(path.stem.removeprefix("rank_")))
        return Checkpoint(
            step=step,
            network=safetensors.torch.load_file(place / "network.safetensors"),
            optimizer=torch.load(place / "optimizer.pt", map_location="cpu", weights_only=True),
            engine=read_json(place / "engine.json", "remove this checkpoint: the run goes on from the one before"),
            ranks=[safetensors.torch.load_file(path) for path in ranks],
            best=safetensors.torch.load_file(best) if best.exists() else {},
        )

    def _write(self, folder: Path, checkpoint: Checkpoint) -> None:
        files = {}
        for name, data in _serialised(checkpoint):
            write_bytes(folder / name, data)
            files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest = {"format": 1, "step": checkpoint.step, "config": self._config, "files": files}
        write_bytes(folder / _MANIFEST, json.dumps(manifest, indent=2).encode())
        sync(folder)

    def _prune(self) -> None:
        for step in self.steps()[: -self._keep_last]:
            if not (self._keep_every and step % self._keep_every == 0):
                self._discard(self.path(step))

    def _discard(self, place: Path) -> None:
        """Remove a checkpoint; a crash midway must not leave something that looks like one."""
        gone = place.with_name(f".{place.name}.discarded")
        shutil.rmtree(gone, ignore_errors=True)
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _set_aside(self, *, newer_than: int) -> None:
        for step in self.steps():
            if step > newer_than:
                damaged = self.path(step).with_name(f"step_{step}.damaged")
                shutil.rmtree(damaged, ignore_errors=True)
                self.path(step).rename(damaged)

    def _clear_leftovers(self) -> None:
        for leftover in [*self.folder.glob(".step_*.partial"), *self.folder.glob(".step_*.discarded")]:
            shutil.rmtree(leftover, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest, every file of it read and compared.

    Raises:
        CheckpointError: The manifest or a file is missing, too short, or has changed.
    """
    try:
        remedy = "the run goes on from the checkpoint before, if there is one"
        manifest = read_json(folder / _MANIFEST, remedy, keys=("files", "config"))
        files = {name: (int(wanted["bytes"]), str(wanted["sha256"])) for name, wanted in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is damaged: {_MANIFEST} cannot be read ({error})") from error
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} is damaged: {name} is missing")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path} is damaged: {path.stat().st_size} bytes instead of {size}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise CheckpointError(f"{path} is damaged: its content is not what was written (sha256 differs)")
    return manifest


def _serialised(checkpoint: Checkpoint) -> Any:
    """Yield names and contents of the files. Plain Python writes them, so that a full disk is an `OSError`."""
    yield "network.safetensors", safetensors.torch.save(_apart(checkpoint.network))
    buffer = io.BytesIO()
    torch.save(checkpoint.optimizer, buffer)
    yield "optimizer.pt", buffer.getbuffer()
    yield "engine.json", json.dumps(checkpoint.engine, indent=2).encode()
    if checkpoint.best:
        yield BEST, safetensors.torch.save(_apart(checkpoint.best))
    for rank, state in enumerate(checkpoint.ranks):
        yield f"rank_{rank}.safetensors", safetensors.torch.save(_apart(state))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return CPU copies that share no memory, as safetensors wants them (tied weights are written twice)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
