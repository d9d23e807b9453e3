"""What the commands share: options, and the log."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midway_hub import _console as console

if TYPE_CHECKING:
    from midway_hub.training.settings import Settings

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (see `recipes`) or path of a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="section.key=value, any number, e.g. engine.precision=bf16.", show_default=False),
]
RunDir = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="Of the data set: -s encoding=train_ids; of worlds: -s objects=[1,2].", show_default=False
    ),
]


def parsed_options(options: list[str] | None, root: type[Settings] | None = None) -> dict[str, Any]:
    """Read name=value as overrides are read; `root` says which values are text."""
    from midway_hub.training.overrides import overridden

    for option in options or ():
        if "=" not in option:
            raise ValueError(f"--set takes name=value, got {option!r}")
    return overridden({}, options or (), root)


def _log_to_stderr() -> None:
    logger = logging.getLogger("midway_hub")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


command = partial(console.command, before=_log_to_stderr)
