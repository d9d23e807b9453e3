"""`python -m midway_hub.training`: pretrain Midway Networks and look after the runs."""

from __future__ import annotations

import typer
from midway_hub.training.commands import data, results, running

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Pretrain Midway Networks from videos: look, train, resume, export.",
    epilog="Start with: python -m midway_hub.training pretrain smoke",
)
for commands in (running, data, results):
    app.add_typer(commands.app)

if __name__ == "__main__":
    app()
