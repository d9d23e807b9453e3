"""The command `midway-hub track`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    SeenAt,
    fetched,
    load_network,
)
from midway_hub.registry import DEFAULT_MODEL


def track(
    video: Annotated[str, typer.Argument(help="A video; an http(s) URL too.", show_default=False)],
    points: Annotated[
        str | None, typer.Option(help="Points to track, 'X,Y;X,Y' in pixels of the first frame, from 0,0 top left.")
    ] = None,
    grid: Annotated[int | None, typer.Option(help="In place of points: an even grid, this many across.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Video of the tracks, .mp4; default: tracks.mp4, or none with --tracks."),
    ] = None,
    tracks: Annotated[Path | None, typer.Option(help="Write the tracks as numbers: .npz or .json.")] = None,
    method: Annotated[
        str, typer.Option(help="dynamics (the paper's rule) or similarity (features alone).")
    ] = "dynamics",
    level: Annotated[int | None, typer.Option(help="Level whose heatmaps are asked; default: the finest.")] = None,
    top: Annotated[int, typer.Option(help="Places of highest heatmap score that similarity chooses from.")] = 5,
    draws: Annotated[int, typer.Option(help="Random directions per heatmap.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the directions.")] = 0,
    refine: Annotated[bool, typer.Option("--refine", help="Move points by parts of a patch too.")] = False,
    when_lost: Annotated[
        str, typer.Option(help="search (look for it again), stop (it stays lost) or ignore (never lose a point).")
    ] = "search",
    trail: Annotated[int, typer.Option(help="Frames back that a point's way is drawn.")] = 24,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: SeenAt = SEEN_AT,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Track points through a video, and draw their ways over its frames."""
    from midway_hub.tracks import TrackLook, write_video_tracks

    rule = {"method": method, "level": level, "top": top, "draws": draws, "seed": seed, "refine": refine}
    chosen = None if points is None else parse_points(points)
    look = TrackLook(trail=trail)
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    with console.step_bars() as bars:
        facts = write_video_tracks(
            net,
            fetched([video])[0],
            Path("tracks.mp4") if out is None and tracks is None else out,
            points=chosen,
            grid=grid,
            tracks_out=tracks,
            every=every,
            size=size or None,
            reader=reader,
            look=look,
            progress=bars,
            when_lost=when_lost,
            **rule,
        )
    console.facts(facts, as_json=as_json)


def parse_points(text: str) -> list[tuple[float, float]]:
    """Read points written as 'X,Y;X,Y'.

    Raises:
        ValueError: They are written otherwise.
    """
    try:
        return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";") if pair.strip())]
    except ValueError:
        raise ValueError(f"--points must be X,Y;X,Y in pixels, such as '120,80;300,95', got {text!r}") from None
