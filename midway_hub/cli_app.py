"""The command `midway-hub app`."""

from __future__ import annotations

from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Model, Offline
from midway_hub.registry import DEFAULT_MODEL


def app_(
    model: Model = DEFAULT_MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also give a public address, through Gradio's tunnel.")
    ] = False,
    max_mb: Annotated[float, typer.Option(help="Largest upload in megabytes.")] = 100,
    max_seconds: Annotated[float, typer.Option(help="Longest video in seconds.")] = 60,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    device: Device = None,
    offline: Offline = False,
) -> None:
    """Open a page in the browser: touch a point, see where it went; flow, classes, features and tracks.

    It serves this machine alone unless told otherwise, and deletes what was uploaded.
    """
    from midway_hub.app.options import PageOptions
    from midway_hub.app.server import is_loopback, serve
    from midway_hub.app.uploads import Limits
    from midway_hub.extraction import choose_device

    for name, value in (("--max-mb", max_mb), ("--max-seconds", max_seconds)):
        if value <= 0:
            raise ValueError(f"{name} must be above 0, got {value:g}")
    alone = is_loopback(host) and not share
    options = PageOptions(
        model=model,
        device=choose_device(device),
        offline=offline,
        any_model=alone,
        limits=Limits(max_mb, max_seconds),
    )

    def ready(address: str, public: str | None) -> None:
        console.say(f"open {address} (Ctrl+C stops it)")
        if public:
            console.say(f"open from anywhere: {public}")

    serve(options, host=host, port=port, share=share, open_browser=open_, ready=ready)
