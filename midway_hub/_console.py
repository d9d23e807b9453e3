"""How the command line speaks: results to stdout, progress and trouble to stderr."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from midway_hub._extras import explained
from midway_hub._progress import speed, told, watched_downloads

if TYPE_CHECKING:
    from midway_hub import extraction

OUT, ERR = Console(), Console(stderr=True)
MOST = 100_000  # columns: wider than any table


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
                function(*args, **{name: _from_home(value) for name, value in kwargs.items()})
            except typer.Exit:  # a RuntimeError of typer's own
                raise
            except KeyboardInterrupt:
                error("interrupted; what is finished is kept, run the same command to go on")
                raise typer.Exit(130) from None
            except (OSError, ValueError, TypeError, RuntimeError, ImportError) as trouble:
                if os.environ.get("MIDWAY_HUB_DEBUG"):
                    raise
                error(f"{explained(trouble)}\n(MIDWAY_HUB_DEBUG=1 shows where it came from)")
                raise typer.Exit(1) from None

        return app.command(rich_help_panel=panel)(guarded)

    return register


def run(app: typer.Typer) -> None:
    """Run a command line: characters that the output cannot show become `?`, and Ctrl+C is one line and code 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except KeyboardInterrupt:
        error("interrupted")
        sys.exit(130)


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
    """Print rows under a header, no name and no number ever cut.

    In a terminal, lines break between words; where the longest words do not fit, borders go, and then the rows come
    one below the other. Files and pipes get every row on one line.
    """
    rows = list(rows)
    options = OUT.options.update(max_width=MOST)
    for look in ({}, {"box": box.SIMPLE, "padding": 0}):
        drawn = _drawn(title, header, rows, **look)
        width = drawn.__rich_measure__(OUT, options)
        if not OUT.is_terminal:
            Console(file=OUT.file, width=width.maximum).print(drawn)
            return
        if width.minimum <= OUT.width:
            OUT.print(drawn)
            return
    _print_one_below_the_other(title, header, rows)


def _drawn(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], **look: Any) -> Table:
    drawn = Table(title=title, title_justify="left", **look)
    for column, name in enumerate(header):
        words = " ".join([name, *(row[column] for row in rows)]).split()
        drawn.add_column(name, min_width=max(map(cell_len, words), default=1))
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _print_one_below_the_other(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    OUT.print(Text(title, style="italic"), soft_wrap=True)
    width = max(map(cell_len, header))
    for row in rows:
        OUT.print(Text(f"{header[0]:<{width}}    {row[0]}", style="bold"), soft_wrap=True)
        for name, value in zip(header[1:], row[1:], strict=True):
            say(f"  {name:<{width}}  {value}")


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
def extraction_bars(*, enabled: bool = True) -> Iterator[Callable[[extraction.Progress], None]]:
    """Show how many files are done, and how far the file at hand is: two bars, or as `step_bars` does."""
    with _bars(enabled) as bars, step_bars(enabled=enabled and bars is None) as tell:
        tasks = [bars.add_task("files", total=None), bars.add_task("", total=None)] if bars else []

        def update(event: extraction.Progress) -> None:
            name, files = Path(event.source.name).name, event.file - (event.state == "working")
            if bars:
                bars.update(tasks[0], total=event.files, completed=files)
                bars.update(tasks[1], description=name, total=event.total or None, completed=event.done)
            elif event.files > 1:
                tell("files", files, event.files, f"{name}: {event.done} of {event.total}")
            else:
                tell(name, event.done, event.total)

        yield update


@contextmanager
def step_bars(*, enabled: bool = True) -> Iterator[Callable[..., None]]:
    """Show how far the steps of a job are on stderr: a bar each on a terminal, elsewhere a line now and then.

    Yields:
        A function to call with what is done, how much of it is done, and of how much (0: not known).
    """
    with _bars(enabled) as bars:
        if bars is None:
            with told(_line) if enabled else nullcontext() as lines:
                yield lines.update if lines else lambda *_: None
            return
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int, detail: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield update


@contextmanager
def download_bars() -> Iterator[None]:
    """Show how far downloads are, as `step_bars` does."""
    with step_bars() as bars, watched_downloads(bars):
        yield


@contextmanager
def download_lines() -> Iterator[None]:
    """Tell how far downloads from the Hub are, where there is no terminal: on one it draws bars itself."""
    with nullcontext() if ERR.is_terminal else download_bars():
        yield


@contextmanager
def _bars(enabled: bool) -> Iterator[Progress | None]:
    """Draw bars where that can be done."""
    if not (enabled and ERR.is_terminal):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=ERR) as progress:
        yield progress


class _Speed(ProgressColumn):
    """Steps a second, or seconds a step, as the lines say it where there is no terminal."""

    def render(self, task: Task) -> Text:
        """Return it; empty where it is not known yet."""
        made = task.finished_speed or task.speed
        return Text(speed(made) if made else "")


def _line(text: str) -> None:
    ERR.print(text, markup=False, highlight=False, soft_wrap=True)


def _from_home(value: Any) -> Any:
    """Replace `~` at the start of a path by the home folder: shells leave it alone behind `=` and in quotes."""
    return value.expanduser() if isinstance(value, Path) else value
