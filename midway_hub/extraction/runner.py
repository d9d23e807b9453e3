"""Work through sources one by one: skip what is finished, report what fails, lose nothing that is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from midway_hub._durable import no_empty_folder
from midway_hub._tensors import need_finite
from midway_hub._version import __version__
from midway_hub.extraction.frames import Frames, open_frames
from midway_hub.extraction.plan import Task, make_plan, output_folder
from midway_hub.extraction.processes import this_process
from midway_hub.extraction.provenance import as_metadata, network_digest
from midway_hub.extraction.results import Extraction, Failure, Progress, Written
from midway_hub.extraction.sources import Sources, StrPath
from midway_hub.extraction.spool import FORMATS, Format, Spool, StorageError, remove_leftovers
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import MidwayImageProcessor
from midway_hub.video import READERS, VideoError

logger = logging.getLogger("midway_hub")

LAYOUT = 1  # goes up when the arrays of an output change their meaning

Rows = Mapping[str, np.ndarray]


class Job(Protocol):
    """What is computed from frames."""

    @property
    def request(self) -> Mapping[str, Any]:
        """What the result depends on, as plain data."""

    def count(self, frames: Frames) -> int:
        """How many rows the frames give."""

    def rows(self, frames: Frames) -> Iterator[Rows]:
        """Compute named arrays, batch by batch, with as many rows each."""


@dataclass(frozen=True)
class Settings:
    """How frames are read and results stored, for any job; `extract_features` describes each."""

    net: MidwayNetwork
    every: int
    batch: int
    processor: MidwayImageProcessor
    format: Format
    reader: str

    def __post_init__(self) -> None:
        for name in ("every", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.reader != "auto" and self.reader not in READERS:
            raise ValueError(f"reader must be one of auto, {', '.join(READERS)}, got {self.reader!r}")
        if self.net.training:
            raise ValueError("the network is in training mode, where results are random; call net.eval() first")

    @property
    def request(self) -> dict[str, Any]:
        """What the result depends on, as plain data. Batch size and device are left out: they change nothing."""
        return {
            "layout": LAYOUT,
            "network_sha256": network_digest(self.net),
            "dtype": str(self.net.dtype).removeprefix("torch."),
            "every": self.every,
            "reader_asked": self.reader,
            "processor": self.processor.to_dict(),
        }

    @property
    def stored_dtype(self) -> torch.dtype:
        """Floating point type of what is stored."""
        return torch.float32 if self.net.dtype == torch.float32 else torch.float16


def run(
    job: Job,
    settings: Settings,
    sources: Sources,
    output: StrPath,
    *,
    overwrite: bool,
    rank: int | None,
    world_size: int | None,
    progress: Callable[[Progress], None] | None,
) -> Extraction:
    """Run a job over this process's share of the sources; `extract_features` describes arguments and errors."""
    rank, world_size = this_process(rank, world_size)
    with no_empty_folder(Path(output)) if world_size == 1 else nullcontext():  # else others may be about to write
        return _run_share(
            job,
            settings,
            sources,
            output_folder(output),
            overwrite=overwrite,
            rank=rank,
            world_size=world_size,
            progress=progress,
        )


def _run_share(
    job: Job,
    settings: Settings,
    sources: Sources,
    folder: Path,
    *,
    overwrite: bool,
    rank: int,
    world_size: int,
    progress: Callable[[Progress], None] | None,
) -> Extraction:
    request = {**settings.request, **job.request}
    plan = make_plan(sources, folder, request, format=settings.format, overwrite=overwrite)
    remove_leftovers(folder)
    mine = plan[rank::world_size]
    result = Extraction(left_out=sources.left_out)
    for number, task in enumerate(mine, start=1):
        state = Progress(task.source, file=number, files=len(mine), done=0, total=0, state="working")
        report = _reporter(progress, state)
        if task.finished:
            result.skipped.append(Written(task.source, task.output, 0))
            report(state="skipped")
            continue
        try:
            written = _extract(job, settings, task, folder, report)
        except StorageError:
            raise
        except (VideoError, OSError, ValueError, torch.OutOfMemoryError) as error:
            logger.debug("%s failed", task.source, exc_info=True)
            result.failed.append(Failure(task.source, _reason(error, settings)))
            report(state="failed")
        else:
            result.done.append(written)
            report(state="done", done=written.count, total=written.count)
    return result


def _reporter(progress: Callable[[Progress], None] | None, state: Progress) -> Callable[..., None]:
    def report(**changes: Any) -> None:
        if progress is not None:
            progress(replace(state, **changes))

    return report


def _extract(job: Job, settings: Settings, task: Task, folder: Path, report: Callable[..., None]) -> Written:
    """Make one output."""
    net = settings.net
    opened = open_frames(
        task.source, every=settings.every, reader=settings.reader, processor=settings.processor, device=net.device
    )
    done = 0
    with opened as frames, Spool(folder) as spool, torch.inference_mode():
        total = job.count(frames)
        report(total=total)
        for rows in job.rows(frames):
            for name, values in rows.items():
                need_finite(values, name, where=f" in rows {done} to {done + len(values) - 1}")
                spool.append(name, values)
            done += len(next(iter(rows.values())))
            report(done=done, total=total)
        spool.save(task.output, as_metadata(task.request, **_facts(net, task, frames)), settings.format)
    return Written(task.source, task.output, done, frames.note)


def _facts(net: MidwayNetwork, task: Task, frames: Frames) -> dict[str, Any]:
    """What is worth knowing of an output beside what was asked for."""
    loaded = net.load_report
    return {
        "model": "built in memory" if loaded is None else loaded.source,
        "weights_sha256": {} if loaded is None else dict(loaded.sha256),
        "source_name": [path.name for path in task.source.paths],
        "reader": frames.reader,
        "frame_size": frames.frame_size,
        "input_size": frames.input_size,
        "note": frames.note,
        "package_version": __version__,
    }


def _reason(error: Exception, settings: Settings) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory on {settings.net.device} with batch {settings.batch}; take a smaller batch or size"
    return str(error) or type(error).__name__
