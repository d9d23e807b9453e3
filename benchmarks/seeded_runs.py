"""What the benchmarks that train from several seeds share: runs of one thread that are kept, and a table of seeds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

FIRST = 10_000  # held-out worlds that are not measured on during training


def train_once(run_dir: Path, arguments: Sequence[str]) -> None:
    """Train in a process of its own, or take the run as it is if it is there."""
    if (run_dir / "export").is_dir():
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-m", "midway_hub.training", *arguments, "--run-dir", str(run_dir)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            check=True,
        )


def train_all(train: Callable[..., Any], runs: Iterable[tuple[Any, ...]], jobs: int) -> None:
    """Call `train` with every run's arguments, so many at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda run: train(*run), runs))


def folder(out: Path, name: str, seed: int) -> Path:
    """Return where the run of a name and a seed is kept."""
    return out / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"


def seed_table(seeds: Sequence[int], rows: Mapping[str, Sequence[float]], *, title: str | None = None) -> Table:
    """Lay numbers out, a row each with a column per seed, and their mean and standard deviation."""
    table = Table("held-out worlds", *(f"seed {seed}" for seed in seeds), "mean ± spread", title=title)
    for name, values in rows.items():
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{statistics.mean(values):.3f}{spread}")
    return table
