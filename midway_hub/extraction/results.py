"""What an extraction says while it works, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from midway_hub.extraction.sources import LeftOut, Source

State = Literal["working", "done", "skipped", "failed"]


@dataclass(frozen=True)
class Progress:
    """How far an extraction is; handed to `progress` when a file is opened, after every batch, and when it ends.

    Attributes:
        source: The file at hand.
        file: Its number among this process's files, from 1.
        files: How many files this process works on.
        done: Frames (for motion: pairs) done of this file.
        total: Frames (pairs) this file has; 0 while unknown.
        state: "working", or how the file ended.
    """

    source: Source
    file: int
    files: int
    done: int
    total: int
    state: State


@dataclass(frozen=True)
class Written:
    """A source whose output is whole.

    Attributes:
        source: What it was made from.
        output: The file.
        count: Frames (for motion: pairs) that this run wrote; 0 if the file was there already.
        note: What the user should know, such as that a video is cut off and where; usually empty.
    """

    source: Source
    output: Path
    count: int
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """A source that has no output.

    Attributes:
        source: The source.
        reason: Why.
    """

    source: Source
    reason: str


@dataclass
class Extraction:
    """What one process did.

    Attributes:
        done: Sources extracted by this run.
        skipped: Sources whose outputs were finished before.
        failed: Sources that could not be extracted.
        left_out: What the inputs hold and was not taken.
    """

    done: list[Written] = field(default_factory=list)
    skipped: list[Written] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def ignored(self) -> int:
        """Files in folders that were left out because of their extension."""
        return sum(self.left_out.files.values())
