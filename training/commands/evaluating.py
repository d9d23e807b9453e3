"""Commands that measure networks: evaluate flow, evaluate segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Dtype, Overlap, SlideText, TileText, size_of, slide_of, tile_of
from midway_hub.training.commands._common import Json, Options, command
from midway_hub.training.commands._evaluating import (
    WORLDS_HELP,
    Limit,
    Out,
    Pictures,
    Root,
    Worlds,
    WorldSize,
    open_flow_data,
    open_labelled_data,
    open_network,
    show,
)

if TYPE_CHECKING:
    from midway_hub.training.evaluation.flow.estimators import Estimator

app = typer.Typer(no_args_is_help=True, help="Measure networks by the published protocols.")


@command(app)
def flow(
    dataset: Annotated[str, typer.Option(help="Such as sintel/subval/clean, kitti2015/train, " + WORLDS_HELP)],
    root: Root = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Checkpoint with a flow head: name, repo, folder or file; any number."),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            help="zero, dis, matching, raft_large[=FILE], raft_small[=FILE] of weights (=random: time alone)."
        ),
    ] = "zero",
    tile: TileText = "default",
    overlap: Overlap = None,
    short_side: Annotated[
        int | None, typer.Option(help="Estimate on frames of this short side, and scale the flow back.")
    ] = None,
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    worlds: Worlds = 64,
    world_size: WorldSize = None,
    device: Device = None,
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
    from midway_hub.training.evaluation.flow.evaluate import evaluate_flow
    from midway_hub.training.evaluation.flow.tables import flow_tables

    data = open_flow_data(dataset, root, worlds, world_size, options)
    estimators: list[Estimator] = _estimators(
        model or [], peers, tile=tile, overlap=overlap, device=device, dtype=dtype
    )
    if short_side is not None:
        estimators = [_resized(each, short_side) for each in estimators]
    with console.step_bars() as bars:
        result = evaluate_flow(data, estimators, out=out, limit=limit, pictures=pictures, progress=bars)
    show(result, flow_tables(result), out=out, as_json=as_json)


@command(app)
def segmentation(
    dataset: Annotated[str, typer.Option(help="Such as bdd100k/val, ade20k/val, folder, " + WORLDS_HELP)],
    model: Annotated[str, typer.Option("--model", "-m", help="Checkpoint with a segmentation head.")],
    root: Root = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Long and short side that pictures are resized to fit, such as 2048x1024; default: not."),
    ] = None,
    slide: SlideText = "default",
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    worlds: Worlds = 64,
    world_size: WorldSize = None,
    device: Device = None,
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

    data = open_labelled_data(dataset, root, worlds, world_size, options)
    network = open_network(model, device=device, dtype=dtype)
    sides = None if scale is None else size_of(scale, "--scale must be LONGxSHORT in pixels, such as 2048x1024")
    pipeline = None if sides is None else SegmentationPipeline(scale=sides)
    with console.step_bars() as bars:
        result = evaluate_segmentation(
            network, data, pipeline, slide=slide_of(slide), out=out, limit=limit, pictures=pictures, progress=bars
        )
    show(result, [segmentation_table(result), class_table(result)], out=out, as_json=as_json)


def _resized(estimator: Estimator, short_side: int) -> Estimator:
    from midway_hub.training.evaluation.flow.estimators import Resized, ZeroMotion

    return estimator if isinstance(estimator, ZeroMotion) else Resized(estimator, short_side)


def _estimators(
    models: list[str], peers: str, *, tile: str, overlap: float | None, device: str | None, dtype: str
) -> list[Estimator]:
    """Networks with a flow head in the order given, then the peers; `matching` uses the first network's encoder."""
    from midway_hub.extraction import choose_device
    from midway_hub.training.evaluation.flow.networks import NetworkFlow
    from midway_hub.training.evaluation.flow.peers import build_peers

    wanted = [peer.strip() for peer in peers.split(",") if peer.strip()]
    networks = {name: open_network(name, device=device, dtype=dtype) for name in models}
    ours: list[Estimator] = []
    for name, network in networks.items():
        if network.has_flow_head or "matching" not in wanted:
            ours.append(NetworkFlow(network, tile=tile_of(tile), overlap=overlap, name=name))
        else:
            console.warning(f"{name} has no flow head; its features serve the peer matching")
    return [*ours, *build_peers(wanted, network=next(iter(networks.values()), None), device=choose_device(device))]
