"""The command `midway-hub adapt-flow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Json, Model, Offline, Reader, fetched, load_network
from midway_hub.registry import DEFAULT_MODEL


def adapt_flow(
    video: Annotated[str, typer.Argument(help="A video, a folder of frames, or an http(s) URL.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, new or empty.")],
    model: Model = DEFAULT_MODEL,
    minutes: Annotated[float, typer.Option(help="How long to train; Ctrl-C ends it with the best so far.")] = 3.0,
    steps: Annotated[int | None, typer.Option(help="How many steps instead of minutes.")] = None,
    every: Annotated[int, typer.Option(help="Frames from the first of a pair to the second.")] = 1,
    size: Annotated[
        int | None, typer.Option(help="Short side in pixels that frames are seen at; default: own, at most 384.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 5e-5,
    smooth: Annotated[float, typer.Option(help="Weight of the smoothness against the photometric error.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the crops that are drawn.")] = 0,
    device: Device = None,
    reader: Reader = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Finetune a checkpoint's flow on your own video, without ground truth, by how well flow explains its frames.

    A fifth of the pairs is held back. What does not explain these better than the checkpoint did is not saved.
    """
    from midway_hub import adaptation

    (source,) = fetched([video])
    net = load_network(model, dtype="float32", device=device, offline=offline)
    options = {"minutes": minutes, "steps": steps, "every": every, "size": size, "lr": lr, "smooth": smooth}
    with console.step_bars() as bars:
        found = adaptation.adapt_flow(net, source, out, seed=seed, reader=reader, progress=bars, **options)  # type: ignore[arg-type]
    console.facts(
        {
            "out": found.out,
            "photometric_error_before": round(found.before, 4),
            "photometric_error_after": round(found.after, 4),
            "fell_by_percent": round(100 * found.fell_by, 1),
            "on_pairs_held_back": found.held_back,
            "steps": found.steps,
            "best_step": found.best_step,
            "seconds": found.seconds,
            **({"note": "stopped early"} if found.interrupted else {}),
            "picture": str(Path(found.out) / adaptation.adapt.PICTURE),
        },
        as_json=as_json,
    )
