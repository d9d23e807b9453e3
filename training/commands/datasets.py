"""Commands about labelled data: datasets, check-labels, check-flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub.training.commands._common import Json, Options, command, parsed_options

app = typer.Typer()

Root = Annotated[Path, typer.Option(help="The data set's own folder, which holds what its archives unpack to.")]
Limit = Annotated[int | None, typer.Option(help="Open at most so many, evenly spread.", show_default=False)]


@command(app, panel="Data")
def datasets(as_json: Json = False) -> None:
    """List the labelled data sets by name: flow and segmentation."""
    from midway_hub.training.data.flow import FLOW_DATASETS
    from midway_hub.training.data.segmentation import SEGMENTATION_DATASETS

    described = {name: layout.description for name, layout in SEGMENTATION_DATASETS.items()}
    if as_json:
        console.print_json({"flow": FLOW_DATASETS, "segmentation": described})
        return
    for title, found in (("flow", FLOW_DATASETS), ("segmentation", described)):
        console.table(title, ["name", "what it is"], list(found.items()))


@command(app, panel="Data")
def check_labels(
    dataset: Annotated[str, typer.Argument(help="Such as bdd100k/train, or folder.")],
    root: Root,
    limit: Limit = None,
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Count what label maps hold, and say what looks wrong: labels off by one, classes that never occur, empty maps.

    Exit code 1 if something does. Of a folder without -s classes=... every number but 255 is counted as a class.

    Example: check-labels folder --root mine -s classes=[road,sky] -s encoding=zero_is_ignored
    """
    from midway_hub.training.data.segmentation import build_segmentation_dataset, label_histogram
    from midway_hub.training.data.segmentation.presets import FolderLayout

    chosen = parsed_options(options, FolderLayout)
    found = build_segmentation_dataset(dataset, root, **chosen)
    unnamed = dataset == "folder" and not {"classes", "palette", "encoding"} & set(chosen)
    with console.step_bars() as bars:
        report = label_histogram(
            found, limit, by_number=unnamed, progress=lambda done, total: bars("label maps", done, total)
        )
    if as_json:
        console.print_json(report.to_dict())
    else:
        console.say(report.table())
        for warning in report.warnings:
            console.warning(warning)
        if unnamed:
            console.say("numbers are taken for classes; to have them checked, name them in order: -s classes=[...]")
    if report.warnings:
        raise typer.Exit(1)


@command(app, panel="Data")
def check_flow(
    dataset: Annotated[list[str], typer.Argument(help="Such as sintel/train/clean; any number, of one folder.")],
    root: Root,
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Count pairs of flow data sets and name the files that are missing, without opening any. Exit code 1 if there are.

    Example: check-flow sintel/subtrain/clean sintel/subtrain/final --root /data/sintel
    """
    from midway_hub.training.data.flow import build_flow_dataset, check_flow_datasets

    found = [build_flow_dataset(name, root, **parsed_options(options)) for name in dataset]
    checks = check_flow_datasets(found, allowed=float("inf"))
    if as_json:
        console.print_json(
            [{"name": c.name, "pairs": c.pairs, "missing": list(c.missing), "published": c.expected} for c in checks]
        )
    else:
        rows = [(c.name, str(c.pairs), str(c.expected or ""), str(len(c.missing))) for c in checks]
        console.table("flow data sets", ["name", "pairs", "published", "missing files"], rows)
    if any(check.missing for check in checks):
        raise typer.Exit(1)
