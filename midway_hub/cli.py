"""The `midway-hub` command: every subcommand is a thin door to a function of the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import (
    CacheDir,
    Device,
    Every,
    Json,
    Model,
    Offline,
    Reader,
    Revision,
    Size,
    fetched,
    load_network,
)
from midway_hub._version import __version__
from midway_hub.cli_adapt import adapt_flow
from midway_hub.cli_analysis import pca, perturb, trajectories
from midway_hub.cli_app import app_
from midway_hub.cli_dense import flow, segment
from midway_hub.cli_info import info
from midway_hub.cli_propagate import propagate
from midway_hub.cli_track import track
from midway_hub.registry import DEFAULT_MODEL

app = typer.Typer(
    name="midway-hub",
    no_args_is_help=True,
    add_completion=False,
    help="What is in a video and how it moves: features, motion and pictures from the Midway Network.",
    epilog="Start with: midway-hub demo",
)

Inputs = Annotated[
    list[str],
    typer.Argument(help="Images, videos, folders of them, .txt lists of paths, or http(s) URLs.", show_default=False),
]
Output = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; finished ones are kept.")]
Batch = Annotated[int, typer.Option(help="Frames computed at a time.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16; half precisions are stored as float16.")]
Format = Annotated[str, typer.Option(help="safetensors or npz.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo results that were made with other options.")]


_command = console.command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What is in a video and how it moves: features, motion and pictures from the Midway Network."""


# -- checkpoints ---------------------------------------------------------------------------------------------------


def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as '*vits*'.")] = "*",
    task: Annotated[str | None, typer.Option(help="features, motion, flow or segmentation.")] = None,
    as_json: Json = False,
) -> None:
    """List the named checkpoints."""
    from midway_hub.registry import get_entry, list_models

    entries = [get_entry(name) for name in list_models(pattern, task=task)]
    if as_json:
        keys = ("name", "summary", "task", "licence", "bundled", "trained")
        console.print_json([{key: getattr(entry, key) for key in keys} for entry in entries])
        return
    rows = [(entry.name, ", ".join(entry.task), entry.licence, entry.summary) for entry in entries]
    console.table("Checkpoints", ("name", "does", "licence", "what it is"), rows)


list_.__name__ = "list"
_command(list_)


_command(info)


@_command
def download(
    name: Annotated[str, typer.Argument(help="Registry name or Hub repo `owner/name` or `owner/name@revision`.")],
    revision: Revision = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Fetch a checkpoint, check it, convert it if need be, and keep it for offline use."""
    from midway_hub.hub import resolve

    with console.download_lines():
        resolved = resolve(name, revision=revision, cache_dir=cache_dir)
    facts = {
        "source": resolved.source,
        "directory": str(resolved.directory),
        "commit": resolved.commit,
        "sha256": resolved.sha256,
        "converted": resolved.converted,
    }
    console.facts(facts, as_json=as_json)


@_command
def convert(
    file: Annotated[Path, typer.Argument(help="The authors' .pth checkpoint.")],
    out: Annotated[Path, typer.Argument(help="Folder to write config.json, model.safetensors, conversion.json into.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier conversion left.")] = False,
    as_json: Json = False,
) -> None:
    """Convert a released .pth to safetensors, without running anything that is in it."""
    from midway_hub.cards import write_model_card
    from midway_hub.convert import convert_checkpoint

    report = convert_checkpoint(file, out, overwrite=overwrite)
    write_model_card(out)
    facts = {
        "folder": str(out),
        "architecture": f"width {report.config.embed_dim}, motion width {report.config.motion_dim}"
        + ("" if report.config.dynamics else " (encoder alone, no dynamics)"),
        "parameters": report.parameters,
        "tensors converted": len(report.mapped),
        "left out": len(report.dropped),
        "head counts from": report.heads,
    }
    console.facts(facts, as_json=as_json)


@_command
def verify(
    name: Annotated[str, typer.Argument(help="Registry name, Hub repo, folder or .safetensors file.")],
    revision: Revision = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Check a checkpoint on this machine: checksum, keys, finite weights, any frame size, golden outputs."""
    from dataclasses import asdict

    from midway_hub.verify import verify as run_checks

    checks = run_checks(name, revision=revision, cache_dir=cache_dir, local_files_only=offline)
    if as_json:
        console.print_json([asdict(check) for check in checks])
    else:
        words = {True: "ok", False: "FAILED", None: "-"}
        rows = [(check.name, words[check.passed], check.detail) for check in checks]
        console.table(name, ("check", "", "seen"), rows)
    if any(check.passed is False for check in checks):
        raise typer.Exit(1)


# -- features and motion -------------------------------------------------------------------------------------------


@_command
def features(
    inputs: Inputs,
    out: Output = Path("features"),
    model: Model = DEFAULT_MODEL,
    layers: Annotated[str, typer.Option(help="Blocks to store beside the last, such as 2,5,8; -1 is the last.")] = "",
    keep: Annotated[str, typer.Option(help="Of the last block, store: last (patches), cls, or both.")] = "last,cls",
    output_format: Annotated[str, typer.Option(help="grid (T, D, h, w) or tokens (T, 1+N, D).")] = "grid",
    network: Annotated[str, typer.Option(help="teacher (plain features) or student.")] = "teacher",
    every: Every = 1,
    batch: Batch = 8,
    size: Size = None,
    dtype: Dtype = "float32",
    device: Device = None,
    format: Format = "safetensors",
    reader: Reader = "auto",
    overwrite: Overwrite = False,
    table: Annotated[
        Path | None,
        typer.Option(help="Also gather all that OUT holds in one .csv or .npz, a row per frame: its CLS token."),
    ] = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write the features of images and videos, one file each: OUT/clip.mp4.safetensors.

    Run it again after an interruption: finished files are skipped. Under torchrun the processes share the work.
    `midway_hub.load_features(OUT)` reads them as one table.
    """
    from midway_hub.extraction import extract_features, load_features
    from midway_hub.extraction.table import table_path

    if table is not None and table_path(table).resolve().is_relative_to(out.resolve()):
        raise ValueError(f"--table {table} lies in {out}, which is for the files of single sources; put it beside")
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    with console.extraction_bars() as progress:
        result = extract_features(
            net,
            fetched(inputs),
            out,
            layers=_numbers(layers),
            keep=tuple(filter(None, keep.split(","))),
            network=network,  # type: ignore[arg-type]  # checked by extract_features
            output_format=output_format,  # type: ignore[arg-type]
            every=every,
            batch=batch,
            processor=_processor(net, size),
            format=format,  # type: ignore[arg-type]
            reader=reader,
            overwrite=overwrite,
            progress=progress,
        )
    if table is not None and os.environ.get("RANK", "0") == "0":
        load_features(out).save(table)
    _report(result, out, "frames", as_json=as_json)


@_command
def motion(
    inputs: Inputs,
    out: Output = Path("motion"),
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    batch: Batch = 8,
    size: Size = None,
    dtype: Dtype = "float32",
    device: Device = None,
    format: Format = "safetensors",
    reader: Reader = "auto",
    overwrite: Overwrite = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write motion latents: of a pair of images (A B), or of consecutive frames of videos."""
    from midway_hub.extraction import extract_motion

    net = load_network(model, dtype=dtype, device=device, offline=offline)
    with console.extraction_bars() as progress:
        result = extract_motion(
            net,
            fetched(inputs),
            out,
            every=every,
            batch=batch,
            processor=_processor(net, size),
            format=format,  # type: ignore[arg-type]
            reader=reader,
            overwrite=overwrite,
            progress=progress,
        )
    _report(result, out, "pairs", as_json=as_json)


# -- flow and segmentation -----------------------------------------------------------------------------------------

_command(flow)
_command(segment)
_command(adapt_flow)


# -- looking -------------------------------------------------------------------------------------------------------


_command(perturb)
_command(track)
_command(propagate)
_command(pca)
_command(trajectories)
app_.__name__ = "app"
_command(app_)


@_command
def demo(
    video: Annotated[Path | None, typer.Argument(help="A video; default: the clip inside the package.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for index.html and pictures.")] = Path("midway-demo"),
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    frames: Annotated[int, typer.Option(help="Frames to show features of.")] = 6,
    as_json: Json = False,
) -> None:
    """Turn a clip into pictures: features, where patches went, and flow and classes if the model has heads."""
    from midway_hub.app.demo import run_demo
    from midway_hub.extraction import choose_device

    chosen = str(choose_device(device))
    with console.step_bars() as progress:
        page = run_demo(video, out=out, model=model, device=chosen, frames=frames, progress=progress)
    console.facts({"open": str(page.absolute())}, as_json=as_json)


@_command
def doctor(as_json: Json = False) -> None:
    """Show versions, devices, video readers and cache, what would be used, and what is amiss."""
    from midway_hub.doctor import examine

    found = examine()
    if as_json:
        console.print_json(found)
        return
    for section in ("versions", "devices", "readers", "cache", "would_use"):
        console.facts(found[section], title=section.replace("_", " "))
    for sentence in found["advice"]:
        console.warning(sentence)


# -- helpers -------------------------------------------------------------------------------------------------------


def _processor(net: Any, size: int | None) -> Any:
    """Without --size frames are made as the checkpoint says: as they are, unless it was saved with another fit."""
    return net.image_processor if size is None else net.image_processor.with_short_side(size)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise ValueError(f"--layers must be block numbers such as 2,5,8 or -1, got {text!r}") from None


def _report(result: Any, out: Path, unit: str, *, as_json: bool) -> None:
    summary = {
        "out": str(out),
        "done": [
            {"source": item.source.name, "file": str(item.output), unit: item.count, "note": item.note}
            for item in result.done
        ],
        "skipped": [str(item.output) for item in result.skipped],
        "failed": [{"source": item.source.name, "reason": item.reason} for item in result.failed],
        "ignored_files": result.ignored,
        "ignored_extensions": dict(result.left_out.files),
        "comment_lines": result.left_out.comments,
    }
    if as_json:
        console.print_json(summary)
    else:
        total = sum(item.count for item in result.done)
        console.say(
            f"{out}: {len(result.done)} done ({total} {unit}), {len(result.skipped)} finished before, "
            f"{len(result.failed)} failed" + (f"; {result.left_out}" if str(result.left_out) else "")
        )
        for item in (*result.done, *result.skipped):
            if item.note:
                console.warning(f"{item.source.name}: {item.note}")
        for failure in result.failed:
            console.error(f"{failure.source.name}: {failure.reason}")
    if result.failed and os.environ.get("WORLD_SIZE", "1") == "1":  # torchrun stops all processes when one fails
        raise typer.Exit(1)


def main() -> None:
    """Run the command line."""
    console.run(app)


if __name__ == "__main__":
    main()
