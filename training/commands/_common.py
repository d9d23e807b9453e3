"""What the commands share: options, guarded errors and the log."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from midway_hub import _console as console

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (see `recipes`) or path of a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="section.key=value, any number, e.g. engine.precision=bf16.", show_default=False),
]
RunDir = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def command(app: typer.Typer) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose expected errors are one red line, and whose interruption says how to go on."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            _log_to_stderr()
            try:
                function(*args, **kwargs)
            except typer.Exit:  # a RuntimeError of typer's own
                raise
            except KeyboardInterrupt:
                console.error("interrupted; what is finished is kept, run the same command to go on")
                raise typer.Exit(130) from None
            except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
                if os.environ.get("MIDWAY_HUB_DEBUG"):
                    raise
                console.error(f"{error}\n(MIDWAY_HUB_DEBUG=1 shows where it came from)")
                raise typer.Exit(1) from None

        return app.command()(guarded)

    return register


def _log_to_stderr() -> None:
    logger = logging.getLogger("midway_hub")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
