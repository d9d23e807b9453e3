"""Where logged values go: `metrics.jsonl` always, TensorBoard and Weights & Biases if asked for."""

from __future__ import annotations

import importlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from midway_hub._extras import how_to_install
from midway_hub.training.engine.durable import as_disk_full, sync
from midway_hub.training.engine.settings import EngineSettings

_log = logging.getLogger("midway_hub")


class MetricWriter(Protocol):
    """Takes named numbers of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one JSON object per line, with its `step`; numbers that are not finite are null."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line.

        Raises:
            DiskFullError: There is no room for it.
        """
        line = {"step": step} | {name: _finite(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise as_disk_full(error, self._path.parent) from error

    def sync(self) -> None:
        """Have the lines so far on the disk."""
        sync(self._path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def drop_lines_after(path: Path, step: int) -> int:
    """Cut `metrics.jsonl` off before the first line of a later step, or the first one that is not whole.

    Returns:
        How many bytes were cut off.
    """
    if not path.exists():
        return 0
    content = path.read_bytes()
    kept = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or not _belongs(line, step):
            break
        kept += len(line)
    later = sum(_belongs(line, step) for line in content[kept:].splitlines())
    if later:
        _log.warning("%s is damaged: %d of its lines, behind one that cannot be read, are lost", path, later)
    if kept < len(content):
        with path.open("r+b") as file:
            file.truncate(kept)
        sync(path)
    return len(content) - kept


def check_writers(settings: EngineSettings) -> None:
    """Refuse writers whose packages are not there, before anything else is done.

    Raises:
        ValueError: TensorBoard or Weights & Biases is asked for and not installed.
    """
    wanted = {"tensorboard": settings.tensorboard, "wandb": settings.wandb is not None}
    for package, asked in wanted.items():
        if asked and not _is_installed(package):
            raise ValueError(
                f"engine.{package} is set, but the package {package} is not installed: {how_to_install(package)}, or "
                f"leave engine.{package} out (metrics.jsonl has the same numbers)"
            )


def extra_writers(
    settings: EngineSettings, folder: Path, *, run_id: str, step: int, config: Mapping[str, Any]
) -> list[MetricWriter]:
    """Return the writers asked for besides `metrics.jsonl`, which go on after `step`."""
    writers: list[MetricWriter] = []
    if settings.tensorboard:
        writers.append(_TensorBoard(folder / "tensorboard", step))
    if settings.wandb is not None:
        writers.append(_WeightsAndBiases(settings.wandb, folder, run_id, config))
    return writers


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, project: str, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=project, dir=str(folder), id=run_id, name=folder.name, config=dict(config), resume="allow"
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _belongs(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def _is_installed(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True
