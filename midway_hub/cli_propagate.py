"""The command `midway-hub propagate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Every, Json, Model, Offline, Reader, fetched, load_network
from midway_hub.analysis.propagation_protocols import DEFAULT_PROTOCOL, FrameSize, adjusted, find_protocol
from midway_hub.cli_dense import Dtype, Legend
from midway_hub.registry import DEFAULT_MODEL


def propagate(
    source: Annotated[
        str, typer.Argument(help="A video (an http(s) URL too), or a folder of frames.", show_default=False)
    ],
    labels: Annotated[
        Path,
        typer.Option(
            help="The first frame's objects: a .png of its size whose pixels are their numbers, 0 elsewhere; 255 is "
            "unknown, and follows nothing."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="An .mp4; or a folder, for overlay.mp4 and a label map per frame.")
    ],
    binary_masks: Annotated[
        bool,
        typer.Option("--binary-masks", help="The labels are a mask of one object, white on black (0 and 255)."),
    ] = False,
    protocol: Annotated[str, typer.Option(help="How objects are followed: dino or cropmae.")] = DEFAULT_PROTOCOL,
    features: Annotated[
        str, typer.Option(help="teacher, student, or backward (refined from the top down).")
    ] = "teacher",
    layer: Annotated[
        int, typer.Option(help="Block from 0, negatives from the last; of backward features a level, -1 the lowest.")
    ] = -1,
    model: Model = DEFAULT_MODEL,
    start: Annotated[int, typer.Option(help="Number of the frame that the labels belong to.")] = 0,
    every: Every = 1,
    size: Annotated[
        int | None,
        typer.Option(help="See frames at this short side, in place of the protocol's size; they stay as large."),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of the .mp4; default: the video's, or 24.")
    ] = None,
    opacity: Annotated[float, typer.Option(help="Share of the objects' colours over the frame, 0 to 1.")] = 0.6,
    legend: Legend = True,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Follow the objects of a video's first frame through it, and write them as colours over the frames.

    By default frames are seen as the protocol says: dino at a short side of 480 pixels, cropmae at 480×880.
    """
    from midway_hub.analysis.propagation_features import network_features
    from midway_hub.dense.label_files import LabelLook
    from midway_hub.dense.propagated_files import write_propagated

    rules = find_protocol(protocol)
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    if size is not None:
        patch = net.config.patch_size
        whole = max(size // patch, 1) * patch
        rules = replace(adjusted(rules, {"size": f"short:{whole}"}), size=FrameSize("short", whole, patch))
    encode = network_features(net, features, layer=layer)  # type: ignore[arg-type]  # checked by network_features
    with console.step_bars() as bars:
        facts = write_propagated(
            encode,
            fetched([source])[0],
            labels,
            out,
            protocol=rules,
            binary_masks=binary_masks,
            start=start,
            every=every,
            fps=fps,
            reader=reader,
            look=LabelLook(opacity, legend),
            device=net.device,
            progress=bars,
        )
    console.facts(facts, as_json=as_json)
