"""`python -m midway_hub.training`: train Midway Networks and look after the runs."""

from __future__ import annotations

import typer

from midway_hub import _console as console
from midway_hub.training.commands import (
    data,
    datasets,
    evaluating,
    evaluating_classification,
    evaluating_dynamics,
    evaluating_propagation,
    results,
    running,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train Midway Networks: pretrain from videos, finetune flow and segmentation, evaluate, export.",
    epilog="Start with: python -m midway_hub.training pretrain smoke",
)
for commands in (running, data, datasets, results):
    app.add_typer(commands.app)
evaluating.app.add_typer(evaluating_dynamics.app)
evaluating.app.add_typer(evaluating_propagation.app)
evaluating.app.add_typer(evaluating_classification.app)
app.add_typer(evaluating.app, name="evaluate", rich_help_panel="Results")


def main() -> None:
    """Run the command line."""
    console.run(app)


if __name__ == "__main__":
    main()
