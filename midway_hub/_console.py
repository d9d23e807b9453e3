"""How the command line speaks: results to stdout, progress and trouble to stderr."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from midway_hub import extraction

OUT, ERR = Console(), Console(stderr=True)


def command(
    app: typer.Typer, *, panel: str | None = None, before: Callable[[], None] = lambda: None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register subcommands whose expected errors are one red line, and whose interruption says how to go on.

    Args:
        app: Where the decorated functions become commands.
        panel: Heading that they are listed under in the help.
        before: Called before a command runs.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            before()
            try:
                function(*args, **kwargs)
            except typer.Exit:  # a RuntimeError of typer's own
                raise
            except KeyboardInterrupt:
                error("interrupted; what is finished is kept, run the same command to go on")
                raise typer.Exit(130) from None
            except (OSError, ValueError, TypeError, RuntimeError, ImportError) as trouble:
                if os.environ.get("MIDWAY_HUB_DEBUG"):
                    raise
                error(f"{trouble}\n(MIDWAY_HUB_DEBUG=1 shows where it came from)")
                raise typer.Exit(1) from None

        return app.command(rich_help_panel=panel)(guarded)

    return register


def say(text: str) -> None:
    """Print a line of result, as it is."""
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


def error(text: str) -> None:
    """Print what went wrong."""
    ERR.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def warning(text: str) -> None:
    """Print what the user should know."""
    ERR.print(Text.assemble(("note: ", "bold yellow"), text), soft_wrap=True)


def markdown(text: str) -> None:
    """Print Markdown, its YAML header and comment lines left out."""
    body = text.split("---\n", 2)[-1] if text.startswith("---\n") else text
    body = "".join(line for line in body.splitlines(keepends=True) if not line.startswith("<!--")).lstrip()
    OUT.print(Markdown(body) if OUT.is_terminal else body, soft_wrap=not OUT.is_terminal, markup=False)


def print_json(value: Any) -> None:
    """Print one JSON document; numbers that are not finite are null."""
    OUT.file.write(json.dumps(_known(value), indent=2, default=str, allow_nan=False) + "\n")


def _known(value: Any) -> Any:
    """Return `value` with null for numbers that are not finite, for which JSON has no words."""
    if isinstance(value, Mapping):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header."""
    drawn = Table(*header, title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*map(Text, row))
    OUT.print(drawn)


def facts(values: Mapping[str, Any], *, title: str | None = None, as_json: bool = False) -> None:
    """Print names and values; nested ones on one line."""
    if as_json:
        print_json(dict(values))
        return
    if title:
        OUT.print(Text(title, style="bold"))
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value)) or "none"
        say(f"  {name:<{width}}  {'-' if value is None else value}")


@contextmanager
def extraction_bars(*, enabled: bool) -> Iterator[Callable[[extraction.Progress], None]]:
    """Show a bar for the files and one for the frames of the file at hand."""
    with _progress(enabled) as progress:
        files = progress.add_task("files", total=None)
        frames = progress.add_task("", total=None)

        def update(event: extraction.Progress) -> None:
            ended = event.state != "working"
            progress.update(files, total=event.files, completed=event.file - (0 if ended else 1))
            progress.update(
                frames, description=Path(event.source.name).name, total=event.total or None, completed=event.done
            )

        yield update


@contextmanager
def step_bars(*, enabled: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar per step of a job."""
    with _progress(enabled) as progress:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield update


def _progress(enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=ERR,
        disable=not (enabled and ERR.is_terminal),
    )
