"""Commands about data: pack, check-pack, walking-tours, bdd100k, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub.training.commands._common import Json, Overrides, Recipe, command

app = typer.Typer()

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="A setting of the pack, e.g. -s short_side=480 -s form=h264.", show_default=False),
]


@command(app, panel="Data")
def pack(
    videos: Annotated[list[str], typer.Argument(help="Videos, folders of them, .txt lists of paths.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack's folder; what is finished in it is kept.")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Forecast disk, time and reading speed only.")] = False,
) -> None:
    """Turn videos into what training reads many times faster: JPEG tar shards, or short-GOP H.264.

    Settings: form jpeg|h264, short_side, jpeg_quality, crf, gop, every, fps, max_frames, run, shard_bytes, processes.
    Train on it with data.source=pack data.path=OUT.
    """
    from midway_hub.training.config import parse_settings
    from midway_hub.training.data import packs

    wanted = parse_settings(packs.PackSettings, settings or ())
    if dry_run:
        console.say(packs.forecast(videos, out, wanted).text)
        return
    with console.step_bars() as bars:
        report = packs.pack(videos, out, wanted, progress=lambda at: bars("packing", at.files_done, at.files_total))
    console.say(
        f"{report.folder}: {report.videos} videos, {report.frames} frames, {report.bytes / 1e6:.1f} MB, "
        f"{report.shards_made} shards made, {report.shards_kept} kept, {report.seconds:.0f} s"
    )
    for rejected in report.rejected:
        console.warning(f"left out {rejected.file}: {rejected.reason}")


@command(app, panel="Data")
def check_pack(folder: Annotated[Path, typer.Argument(help="A pack's folder.")], processes: int = 1) -> None:
    """Check a pack: every checksum, every index, a sample of the pictures. Exit code 1 if something is broken."""
    from midway_hub.training.data import packs

    with console.step_bars() as bars:
        report = packs.verify(folder, processes=processes, progress=lambda done, total: bars("checking", done, total))
    console.say(report.text)
    if not report.ok:
        raise typer.Exit(1)


@command(app, panel="Data")
def walking_tours(
    folder: Annotated[Path | None, typer.Argument(help="Where the videos lie; without it: what to get.")] = None,
) -> None:
    """Say which Walking Tours videos to get and how to name them, or check those that are there. Downloads nothing."""
    from midway_hub.training import walking_tours as tours

    console.say(tours.instructions() if folder is None else str(tours.check_walking_tours(folder)))


@command(app, panel="Data")
def bdd100k(
    folder: Annotated[Path, typer.Argument(help="The flat folder of one split, bdd100k/videos/train.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    samples: Annotated[int, typer.Option(help="Files to open, spread over the list.")] = 20,
) -> None:
    """Check a folder of BDD100K videos: how many there are, and whether some of them can be read. Downloads nothing."""
    from midway_hub.training import walking_tours as tours

    console.say(str(tours.check_bdd100k(folder, split=split, samples=samples)))


@command(app, panel="Data")
def doctor(
    recipe: Recipe,
    overrides: Overrides = None,
    seconds: Annotated[float, typer.Option(help="About how long each measurement takes.")] = 3.0,
    run_dir: Annotated[Path, typer.Option(help="Where checkpoints will be: its disk is looked at.")] = Path(),
    as_json: Json = False,
) -> None:
    """Measure a recipe on this data and this machine: what it will cost, and which change helps most."""
    from midway_hub.training.config import load_config
    from midway_hub.training.examination import examine_run

    found = examine_run(load_config(recipe, overrides or ()), run_dir=run_dir, seconds=seconds, progress=_tell)
    if as_json:
        console.print_json(found.facts())
    else:
        console.say(found.text())


def _tell(what: str) -> None:
    console.ERR.print(f"measuring: {what}", style="dim")
