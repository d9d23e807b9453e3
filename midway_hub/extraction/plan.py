"""What is to be done: which output each source has, and which are finished. All conflicts are found before any work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midway_hub.extraction.provenance import describe_source, differences
from midway_hub.extraction.sources import Source, Sources, StrPath
from midway_hub.extraction.spool import Format
from midway_hub.file_names import fitting

SHOWN_CONFLICTS = 5


class OutputExistsError(FileExistsError):
    """An output is there already and was made from something else, or differently."""


@dataclass(frozen=True)
class Task:
    """One source on its way to one output.

    Attributes:
        source: The source.
        output: Where it goes.
        request: All that the output depends on.
        finished: Whether the output is there, whole, and made by the same request.
    """

    source: Source
    output: Path
    request: Mapping[str, Any]
    finished: bool


def make_plan(
    sources: Sources, folder: Path, request: Mapping[str, Any], *, format: Format, overwrite: bool
) -> list[Task]:
    """Give every source its output.

    Args:
        sources: All sources, of all processes.
        folder: Output folder.
        request: What the outputs depend on beside their sources.
        format: File format.
        overwrite: Whether outputs that were made otherwise are made anew.

    Returns:
        One task per source, in order.

    Raises:
        OutputExistsError: Outputs were made otherwise; each is named with what differs.
    """
    tasks, conflicts = [], []
    for source in sources.items:
        below, _, name = source.name.rpartition("/")
        output = folder / below / fitting(name, f".{format}", folder)
        whole_request = {**request, "source": describe_source(source)}
        exists = output.exists()
        found = differences(output, whole_request) if exists else []
        tasks.append(Task(source, output, whole_request, finished=exists and not found))
        if found:
            conflicts.append(f"  {output}: {'; '.join(found)}")
    if conflicts and not overwrite:
        hidden = len(conflicts) - SHOWN_CONFLICTS
        listed = "\n".join(conflicts[:SHOWN_CONFLICTS]) + (f"\n  ... and {hidden} more" if hidden > 0 else "")
        raise OutputExistsError(
            f"{len(conflicts)} of {len(tasks)} outputs exist and were made otherwise:\n{listed}\n"
            f"Choose another output folder, or make these anew with overwrite=True (--overwrite)"
        )
    return tasks


def output_folder(path: StrPath) -> Path:
    """Make the output folder if need be.

    Raises:
        NotADirectoryError: There is a file of that name, or on the way there.
        PermissionError: It cannot be written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"output {folder} must be a folder, and a file is in its place") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"output folder {folder} cannot be written to; choose another or change its permissions")
    return folder
