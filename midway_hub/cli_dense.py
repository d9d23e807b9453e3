"""The commands `midway-hub flow` and `midway-hub segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import (
    Device,
    Dtype,
    Every,
    Json,
    Model,
    Offline,
    Overlap,
    Reader,
    Size,
    SlideText,
    TileText,
    fetched,
    load_network,
    slide_of,
    tile_of,
)
from midway_hub.registry import DEFAULT_MODEL

Legend = Annotated[bool, typer.Option("--legend/--no-legend", help="Explain the colours in a corner.")]


def flow(
    inputs: Annotated[
        list[str], typer.Argument(help="Two images of one size, or a video; http(s) URLs too.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Of images: numbers (.flo .pfm .flo5 .npy .npz) or a colour picture (.png .jpg). Of a video: an .mp4.",
        ),
    ],
    picture: Annotated[Path | None, typer.Option(help="Of images: write a colour picture as well.")] = None,
    kitti: Annotated[
        bool, typer.Option("--kitti", help="Write -o FILE.png as KITTI's 16-bit numbers, not as a colour picture.")
    ] = False,
    arrows: Annotated[bool, typer.Option("--arrows", help="Draw arrows over the colours.")] = False,
    scale: Annotated[
        float | None, typer.Option(help="Pixels of motion that get the full colours; default: what 99% stay below.")
    ] = None,
    legend: Legend = True,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: Size = None,
    tile: TileText = "default",
    overlap: Overlap = None,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write the optical flow between two images, or of a video as a video of colours, at the frames' own size."""
    from midway_hub.dense import FlowLook, write_pair_flow, write_video_flow
    from midway_hub.extraction import find_motion_sources

    found = find_motion_sources(fetched(inputs)).items
    if len(found) != 1:
        raise ValueError(f"flow is of two images or of one video, got {len(found)} videos")
    look = FlowLook(scale, arrows, legend)
    windows = {"size": size, "tile": tile_of(tile), "overlap": overlap}
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    if found[0].kind == "pair":
        facts = write_pair_flow(net, found[0].paths, out, kitti=kitti, picture=picture, look=look, **windows)
    else:
        if kitti or picture:
            raise ValueError("--kitti and --picture are for the flow between two images; of a video, -o is an .mp4")
        with console.step_bars(enabled=not as_json) as bars:
            facts = write_video_flow(
                net, found[0].paths[0], out, every=every, reader=reader, look=look, progress=bars, **windows
            )
    console.facts(facts, as_json=as_json)


def segment(
    source: Annotated[str, typer.Argument(help="An image or a video; an http(s) URL too.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Classes over the frame: .png .jpg of an image, .mp4 of a video.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="Write label maps as well, indexed .png of class numbers: a file, or of a video a folder."),
    ] = None,
    opacity: Annotated[float, typer.Option(help="Share of the classes' colours over the frame, 0 to 1.")] = 0.6,
    legend: Legend = True,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: Size = None,
    slide: SlideText = "default",
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write the classes of an image or a video as colours over its frames, at their own size."""
    from midway_hub.dense import LabelLook, write_image_labels, write_video_labels
    from midway_hub.extraction import find_sources

    found = find_sources(fetched([source])).items
    if len(found) != 1:
        raise ValueError(f"segment takes one image or one video, {source} holds {len(found)}")
    options: dict[str, Any] = {"labels_out": labels, "look": LabelLook(opacity, legend), "size": size}
    options["slide"] = slide_of(slide)
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    if found[0].kind == "image":
        facts = write_image_labels(net, found[0].paths[0], out, **options)
    else:
        with console.step_bars(enabled=not as_json) as bars:
            facts = write_video_labels(
                net, found[0].paths[0], out, every=every, reader=reader, progress=bars, **options
            )
    console.facts(facts, as_json=as_json)
