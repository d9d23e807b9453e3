"""Commands that measure networks: evaluate flow, evaluate segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from midway_hub.training.commands._common import Json, command

from midway_hub import _console as console

if TYPE_CHECKING:
    from midway_hub.training.data.flow.sample import FlowDataset
    from midway_hub.training.data.segmentation.sample import SegmentationDataset
    from midway_hub.training.data.synthetic import WorldSettings
    from midway_hub.training.evaluation.flow.estimators import Estimator
    from midway_hub.training.evaluation.tables import Rows

    from midway_hub import MidwayNetwork

app = typer.Typer(no_args_is_help=True, help="Measure networks by the published protocols.")

WORLD = "world"

Root = Annotated[Path | None, typer.Option(help="The data set's folder; synthetic worlds need none.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="Of the data set: -s encoding=train_ids; of worlds: -s objects=[1,2].", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for results.json, a line per item and pictures; goes on where it was."),
]
Limit = Annotated[int | None, typer.Option(help="Measure at most so many items, evenly spread.", show_default=False)]
Pictures = Annotated[int, typer.Option(help="Of how many items pictures are drawn, with --out.")]
Worlds = Annotated[int, typer.Option(help="Held-out synthetic worlds, with --dataset world.")]
WorldSize = Annotated[str, typer.Option(help="Height and width of the worlds' frames.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="Precision of the weights: float32, bfloat16 or float16.")]


@command(app)
def flow(
    dataset: Annotated[str, typer.Option(help="Such as sintel/subval/clean, kitti2015/train, or world.")],
    root: Root = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Checkpoint with a flow head: name, repo, folder or file; any number."),
    ] = None,
    peers: Annotated[
        str, typer.Option(help="zero, dis, raft_large, raft_small (=WEIGHTS for others than random), matching.")
    ] = "zero",
    tile: Annotated[
        str, typer.Option(help="Windows such as 320x384, `training` for the head's own, or `whole` for whole frames.")
    ] = "default",
    overlap: Annotated[float | None, typer.Option(help="Share of a window that the next one covers again.")] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Estimate on frames of this short side, and scale the flow back.")
    ] = None,
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    worlds: Worlds = 64,
    world_size: WorldSize = "128x128",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Measure optical flow: EPE, bad pixels, Fl-all, by speed, visible and occluded, beside other methods.

    Every number is stored with its resolution, tiles, overlap, precision and weights; CroCo v2 validates at overlap
    0.7 and reports at 0.9, and the two are not to be compared. An interrupted evaluation goes on with --out.

    Examples: evaluate flow --dataset world --model runs/flow/export --peers zero,matching

    evaluate flow --dataset sintel/subval/clean --root /data/sintel -m runs/flow/export --tile 320x384 --overlap 0.9
    --peers zero,dis,raft_large=raft_large_C_T_SKHT_V2.pth -o results/sintel
    """
    from midway_hub.training.evaluation.flow.estimators import Resized, ZeroMotion
    from midway_hub.training.evaluation.flow.evaluate import evaluate_flow
    from midway_hub.training.evaluation.flow.tables import flow_tables

    data = open_flow_data(dataset, root, worlds, world_size, options)
    estimators = _estimators(model or [], peers, tile=tile, overlap=overlap, device=device, dtype=dtype)
    if short_side is not None:
        estimators = [each if isinstance(each, ZeroMotion) else Resized(each, short_side) for each in estimators]
    with console.step_bars(enabled=not as_json) as bars:
        result = evaluate_flow(data, estimators, out=out, limit=limit, pictures=pictures, progress=bars)
    show(result, flow_tables(result), out=out, as_json=as_json)


@command(app)
def segmentation(
    dataset: Annotated[str, typer.Option(help="Such as bdd100k/val, ade20k/val, folder, or world.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Checkpoint with a segmentation head.")],
    root: Root = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Long and short side that pictures are resized to fit, such as 2048x1024; default: not."),
    ] = None,
    slide: Annotated[
        str | None, typer.Option(help="Window and step such as 512x341, or `none`; default: what the head says.")
    ] = None,
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    worlds: Worlds = 64,
    world_size: WorldSize = "128x128",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    options: Options = None,
    as_json: Json = False,
) -> None:
    """Measure segmentation as mmsegmentation does: mIoU over the whole data set, pixel accuracy, every class.

    The paper's numbers: BDD100K and Cityscapes with --scale 2048x1024 --slide 512x341, ADE20K with --scale 2048x512.

    Examples: evaluate segmentation --dataset world -m runs/segmentation/export

    evaluate segmentation --dataset bdd100k/val --root /data/bdd100k -m runs/linear/export --scale 2048x1024
    --slide 512x341 -o results/bdd
    """
    from midway_hub.training.data.segmentation.pipeline import SegmentationPipeline
    from midway_hub.training.evaluation.segmentation.evaluate import evaluate_segmentation
    from midway_hub.training.evaluation.segmentation.tables import class_table, segmentation_table

    data = _labelled_data(dataset, root, worlds, world_size, options)
    network = open_network(model, device=device, dtype=dtype)
    pipeline = None if scale is None else SegmentationPipeline(scale=_size(scale, "--scale"))
    window: Any = "default" if slide is None else None if slide == "none" else _size(slide, "--slide")
    with console.step_bars(enabled=not as_json) as bars:
        result = evaluate_segmentation(
            network, data, pipeline, slide=window, out=out, limit=limit, pictures=pictures, progress=bars
        )
    show(result, [segmentation_table(result), class_table(result)], out=out, as_json=as_json)


def _estimators(
    models: list[str], peers: str, *, tile: str, overlap: float | None, device: str, dtype: str
) -> list[Estimator]:
    """Networks with a flow head in the order given, then the peers; `matching` uses the first network's encoder."""
    from midway_hub.training.evaluation.flow.networks import NetworkFlow
    from midway_hub.training.evaluation.flow.peers import build_peers

    wanted = [peer.strip() for peer in peers.split(",") if peer.strip()]
    window: Any = None if tile == "whole" else tile if tile in ("training", "default") else _size(tile, "--tile")
    networks = {name: open_network(name, device=device, dtype=dtype) for name in models}
    ours = []
    for name, network in networks.items():
        if network.has_flow_head or "matching" not in wanted:
            ours.append(NetworkFlow(network, tile=window, overlap=overlap, name=name))
        else:
            console.warning(f"{name} has no flow head; its features serve the peer matching")
    return [*ours, *build_peers(wanted, network=next(iter(networks.values()), None), device=device)]


def open_network(name: str, *, device: str, dtype: str) -> MidwayNetwork:
    import torch

    from midway_hub import MidwayNetwork

    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype must be float32, bfloat16 or float16, got {dtype!r}")
    return MidwayNetwork.from_pretrained(name, device=device, dtype=getattr(torch, dtype))


def open_flow_data(
    name: str, root: Path | None, worlds: int, world_size: str, options: list[str] | None
) -> FlowDataset:
    from midway_hub.training.data.flow import WorldFlow, build_flow_dataset

    if name == WORLD:
        return WorldFlow(*_worlds(worlds, world_size, options))
    return build_flow_dataset(name, _needed(root, name), **parsed_options(options))


def _labelled_data(
    name: str, root: Path | None, worlds: int, world_size: str, options: list[str] | None
) -> SegmentationDataset:
    from midway_hub.training.data.segmentation.presets import build_segmentation_dataset
    from midway_hub.training.data.segmentation.world import WorldSegmentation

    if name == WORLD:
        return WorldSegmentation(*_worlds(worlds, world_size, options))
    return build_segmentation_dataset(name, _needed(root, name), **parsed_options(options))


def _worlds(count: int, size: str, options: list[str] | None) -> tuple[WorldSettings, range]:
    from midway_hub.training.configuration import parse_settings
    from midway_hub.training.data.synthetic import WorldSettings, held_out_seeds

    height, width = _size(size, "--world-size")
    return parse_settings(WorldSettings, [*(options or ()), f"size=[{height},{width}]"]), held_out_seeds(count)


def _needed(root: Path | None, name: str) -> Path:
    if root is None:
        raise ValueError(f"{name} is read from files: say where with --root FOLDER")
    return root


def parsed_options(options: list[str] | None) -> dict[str, Any]:
    """Read name=value; values are YAML."""
    import yaml

    pairs = [option.partition("=") for option in options or ()]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--set takes name=value, got {name!r}")
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def _size(text: str, option: str) -> tuple[int, int]:
    """Read two numbers such as 320x384."""
    first, _, second = text.lower().partition("x")
    if not (first.isdigit() and second.isdigit()):
        raise ValueError(f"{option} takes two numbers such as 320x384, got {text!r}")
    return int(first), int(second)


def show(result: Any, tables: list[Rows], *, out: Path | None, as_json: bool) -> None:
    from midway_hub.training.evaluation.records import plain

    if as_json:
        console.print_json(plain(result))
        return
    for table in tables:
        console.table(table.title, table.header, table.rows)
    if out is not None:
        console.say(f"{out}: results.json, a line per item, pictures")
