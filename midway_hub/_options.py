"""Options that several commands have, and what they mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midway_hub import _console as console

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Registry name (see `midway-hub list`), Hub repo `owner/name` or `owner/name@revision`, folder, or "
        ".safetensors file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use what is cached; never ask the network.")]
Every = Annotated[int, typer.Option(help="Of a video, take every k-th frame.")]
Reader = Annotated[str, typer.Option(help="Video reader: auto, decord, pyav or torchcodec.")]
Size = Annotated[
    int | None, typer.Option(help="Resize frames so that their short side has this many pixels; default: as they are.")
]


def load_network(model: str, *, dtype: str, device: str | None, offline: bool) -> Any:
    """Load a network where it is to run, and say so when its weights are untrained."""
    import torch

    from midway_hub.extraction import choose_device
    from midway_hub.models.network import MidwayNetwork
    from midway_hub.registry import get_entry, list_models

    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in precisions:
        raise ValueError(f"--dtype must be one of {', '.join(precisions)}, got {dtype!r}")
    if model in list_models() and not get_entry(model).trained:
        console.warning(f"{model} holds untrained weights: the numbers show that everything runs, no more")
    return MidwayNetwork.from_pretrained(
        model, dtype=precisions[dtype], device=choose_device(device), local_files_only=offline
    )


def fetched(inputs: list[str]) -> list[str]:
    """Replace URLs by files of the cache, downloaded once."""
    from midway_hub.fetch import cached_download

    return [str(cached_download(text)) if text.startswith(("http://", "https://")) else text for text in inputs]
