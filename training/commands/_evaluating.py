"""What the commands that measure share: options, what is opened, and how results are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import load_network, size_of
from midway_hub.training.commands._common import parsed_options

if TYPE_CHECKING:
    from midway_hub import MidwayNetwork
    from midway_hub.training.data.flow.sample import FlowDataset
    from midway_hub.training.data.segmentation.sample import SegmentationDataset
    from midway_hub.training.data.synthetic import WorldSettings
    from midway_hub.training.evaluation.tables import Rows

WORLD = "world"
WORLDS_HELP = "world, or world:RECIPE for the worlds of a recipe or a run's config.yaml."

Root = Annotated[Path | None, typer.Option(help="The data set's folder; synthetic worlds need none.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for results.json, a line per item and pictures; goes on where it was."),
]
Limit = Annotated[int | None, typer.Option(help="Measure at most so many items, evenly spread.", show_default=False)]
Pictures = Annotated[int, typer.Option(help="Of how many items pictures are drawn, with --out.")]
Worlds = Annotated[int, typer.Option(help="Held-out synthetic worlds, with --dataset world.")]
WorldSize = Annotated[
    str | None,
    typer.Option(help="HEIGHTxWIDTH of the worlds' frames; default: as their recipe says, 128x128 without one."),
]


def open_network(name: str, *, device: str | None, dtype: str) -> MidwayNetwork:
    with console.download_lines():
        return load_network(name, device=device, dtype=dtype, offline=False)


def open_flow_data(
    name: str, root: Path | None, worlds: int, world_size: str | None, options: list[str] | None
) -> FlowDataset:
    from midway_hub.training.data.flow import WorldFlow, build_flow_dataset

    if name.partition(":")[0] == WORLD:
        return WorldFlow(*_worlds(name, worlds, world_size, options))
    return build_flow_dataset(name, _needed(root, name), **parsed_options(options))


def open_labelled_data(
    name: str, root: Path | None, worlds: int, world_size: str | None, options: list[str] | None
) -> SegmentationDataset:
    from midway_hub.training.data.segmentation.presets import FolderLayout, build_segmentation_dataset
    from midway_hub.training.data.segmentation.world import WorldSegmentation

    if name.partition(":")[0] == WORLD:
        return WorldSegmentation(*_worlds(name, worlds, world_size, options))
    return build_segmentation_dataset(name, _needed(root, name), **parsed_options(options, FolderLayout))


def _worlds(name: str, count: int, size: str | None, options: list[str] | None) -> tuple[WorldSettings, range]:
    """Settings and seeds of `world`, or of `world:RECIPE`."""
    from midway_hub.training.configuration import parse_settings
    from midway_hub.training.data.synthetic import WorldSettings, held_out_seeds

    recipe = name.partition(":")[2]
    chosen = list(options or ())
    if size is not None:
        height, width = size_of(size, "--world-size must be HEIGHTxWIDTH in pixels, such as 64x64")
        chosen.append(f"size=[{height},{width}]")
    return parse_settings(WorldSettings, chosen, over=_world_of(recipe) if recipe else {}), held_out_seeds(count)


def _world_of(recipe: str) -> dict[str, Any]:
    """Return what a recipe, or a run's config.yaml, says of its worlds."""
    from midway_hub.training.recipes import kind_of, read_recipe

    world = read_recipe(recipe, kind=kind_of(recipe)).get("data", {}).get("world")
    if world is None:
        raise ValueError(f"{recipe} says nothing of worlds; name a recipe or a config.yaml with a section data.world")
    return world


def _needed(root: Path | None, name: str) -> Path:
    if root is None:
        raise ValueError(f"{name} is read from files: say where with --root FOLDER")
    return root


def show(result: Any, tables: list[Rows], *, out: Path | None, as_json: bool) -> None:
    from midway_hub.training.evaluation.records import plain

    if as_json:
        console.print_json(plain(result))
        return
    for table in tables:
        console.table(table.title, table.header, table.rows)
    if out is not None:
        console.say(f"{out}: results.json, a line per item, pictures")
