"""The commands `midway-hub perturb`, `midway-hub pca` and `midway-hub trajectories`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import (
    SEEN_AT,
    Device,
    Dtype,
    Every,
    Json,
    Model,
    Offline,
    Reader,
    Size,
    fetched,
    load_network,
)
from midway_hub.registry import DEFAULT_MODEL

Picture = Annotated[Path, typer.Option("--out", "-o", help="A picture: .png .jpg .webp.")]


def perturb(
    inputs: Annotated[
        list[str], typer.Argument(help="Two images of one size, or a video; http(s) URLs too.", show_default=False)
    ],
    at: Annotated[
        list[str], typer.Option("--at", help="X,Y in pixels of the first frame; any number.", show_default=False)
    ],
    out: Picture,
    pair: Annotated[str | None, typer.Option(help="Of a video, frames I,J; default: 0,1.")] = None,
    level: Annotated[str, typer.Option(help="Encoder block such as 2, or all.")] = "all",
    draws: Annotated[int, typer.Option(help="Random directions per point.")] = 16,
    exact: Annotated[bool, typer.Option("--exact", help="The whole Jacobian, no random directions.")] = False,
    model: Model = DEFAULT_MODEL,
    size: Annotated[
        int | None,
        typer.Option(
            help=f"Short side in pixels that the network sees the frames at, the time grows fast; 0: their own. "
            f"Default: {SEEN_AT}, or their own where that is less."
        ),
    ] = None,
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Touch patches of one frame and show where the network feels them in another, at every level.

    Example: midway-hub perturb first.jpg second.jpg --at 120,80 --at 40,60 -o felt.png
    """
    from midway_hub.analysis_pictures import read_pair, write_perturbation
    from midway_hub.dense.writing import check_places

    points = [_two_numbers(text, float, "--at must be X,Y in pixels, such as 120,80") for text in at]
    frames, names = _two_frames(inputs, pair)
    asked = None if level == "all" else _whole_number(level)
    files = fetched(inputs)
    check_places(files, [out])
    images = read_pair(files, pair=frames, reader=reader)
    net = load_network(model, dtype="float32", device=device, offline=offline)
    with console.step_bars() as bars:
        facts = write_perturbation(
            net,
            images,
            points,
            out,
            names=names,
            level=asked,
            draws=draws,
            exact=exact,
            size=min(SEEN_AT, *images[0].size) if size is None else size or None,
            progress=bars,
        )
    if as_json:
        console.print_json(facts)
        return
    rows = [
        (
            "{:g}, {:g}".format(*point["at"]),
            str(found["level"]),
            "{:.0f}, {:.0f}".format(*found["peak"]),
            "{:+.0f}, {:+.0f}".format(*found["displacement"]),
            f"{found['score']:.3f}",
            f"{found['confidence']:.2f}",
        )
        for point in facts["points"]
        for found in point["levels"]
    ]
    console.table("in pixels", ("touched at", "level", "felt at", "moved", "alignment", "sure"), rows)
    console.say(f"{out}: heatmaps by {facts['measured_by']}")


def pca(
    inputs: Annotated[
        list[str], typer.Argument(help="A video, or images of any size; http(s) URLs too.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Of a video an .mp4, of images a picture: .png .jpg .webp.")],
    layer: Annotated[int, typer.Option(help="Encoder block, from 0; -1 is the last.")] = -1,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also draw what the CLS token looks at, head by head.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: Size = None,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Colour features by their first three principal components, fixed over all frames."""
    from midway_hub.analysis_pictures import write_image_features, write_video_features
    from midway_hub.extraction import find_sources

    found = find_sources(fetched(inputs)).items
    kinds = {item.kind for item in found}
    if kinds != {"image"} and len(found) != 1:
        raise ValueError(f"pca takes images, or one video; got {len(found)} inputs that are {' and '.join(kinds)}s")
    look: dict[str, Any] = {"layer": layer, "attention": attention, "size": size}
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    with console.step_bars() as bars:
        if kinds == {"image"}:
            facts = write_image_features(net, [item.paths[0] for item in found], out, progress=bars, **look)
        else:
            facts = write_video_features(net, found[0].paths[0], out, every=every, reader=reader, progress=bars, **look)
    console.facts(facts, as_json=as_json)


def trajectories(
    video: Annotated[str, typer.Argument(help="A video; an http(s) URL too.", show_default=False)],
    out: Picture,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: Size = None,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show how the motion of a video wanders, level by level, and which of its moments move alike."""
    from midway_hub.analysis_pictures import write_trajectories

    net = load_network(model, dtype=dtype, device=device, offline=offline)
    with console.step_bars() as bars:
        facts = write_trajectories(net, fetched([video])[0], out, every=every, size=size, reader=reader, progress=bars)
    if as_json:
        console.print_json(facts)
        return
    rows = [
        (str(level["level"]), *(f"{100 * share:.0f}%" for share in level["explained"])) for level in facts["levels"]
    ]
    console.table(f"{len(facts['moments'])} moments", ("level", "first component", "second"), rows)
    console.say(f"{out}: the way of the motion and the distances between moments")


def _two_frames(inputs: list[str], pair: str | None) -> tuple[tuple[int, int] | None, tuple[str, str]]:
    """Return the frames of a video that are asked for, and what captions call the two."""
    if len(inputs) == 2:
        if pair is not None:
            raise ValueError("--pair picks two frames of a video; with two images leave it out")
        return None, (Path(inputs[0]).name, Path(inputs[1]).name)
    if len(inputs) != 1:
        raise ValueError(f"perturb takes two images, or one video with --pair I,J; got {len(inputs)} inputs")
    first, second = _two_numbers(pair or "0,1", int, "--pair must be two frame numbers, such as 0,5")
    return (first, second), (f"frame {first}", f"frame {second}")


def _two_numbers(text: str, kind: Any, wanted: str) -> tuple[Any, Any]:
    try:
        first, second = (kind(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{wanted}; got {text!r}") from None
    return first, second


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--level must be an encoder block such as 2, or all; got {text!r}") from None
