"""`python -m midway_hub.training`: make weights from recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from midway_hub.training.recipes import list_recipes

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make weights from recipes.")


@app.callback()
def _commands() -> None:
    """Make weights from recipes."""


@app.command()
def init(
    recipe: Annotated[str, typer.Argument(help=f"One of: {', '.join(list_recipes())}.")],
    out: Annotated[Path, typer.Argument(help="Folder to write config.json, model.safetensors, ... into.")],
) -> None:
    """Write the seeded, untrained checkpoint that a recipe describes."""
    from midway_hub.training.initialise import initialise

    try:
        net = initialise(recipe, out)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    count = sum(parameter.numel() for parameter in net.parameters())
    typer.echo(f"{out}: {count / 1e6:.2f} M parameters, {net.dtype}, untrained")


if __name__ == "__main__":
    app()
