"""Options that several commands have, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from midway_hub import _console as console

if TYPE_CHECKING:
    import torch

    from midway_hub.models.flow import Tile

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
CacheDir = Annotated[Path | None, typer.Option(help="Where downloads are kept; default: the Hugging Face cache.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repo.")]
Every = Annotated[int, typer.Option(help="Of a video, take every k-th frame.")]
Reader = Annotated[str, typer.Option(help="Video reader: auto, decord, pyav or torchcodec.")]
Size = Annotated[
    int | None, typer.Option(help="Resize frames so that their short side has this many pixels; default: as they are.")
]

SEEN_AT = 224
SeenAt = Annotated[
    int, typer.Option(help="Short side in pixels that the network sees frames at, the time grows fast; 0: their own.")
]

Dtype = Annotated[str, typer.Option(help="Precision of the weights: float32, bfloat16 or float16.")]
TileText = Annotated[
    str,
    typer.Option(help="Windows of HEIGHTxWIDTH pixels, 'training' for those of training, or 'whole' for whole frames."),
]
Overlap = Annotated[float | None, typer.Option(help="Share of a window that the next one covers again.")]
SlideText = Annotated[
    str, typer.Option(help="Windows as SIDExSTEP in pixels, or 'whole' for whole frames; default: the head's own.")
]


def dtype_of(text: str) -> torch.dtype:
    """Read --dtype."""
    import torch

    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if text not in precisions:
        raise ValueError(f"--dtype must be one of {', '.join(precisions)}, got {text!r}")
    return precisions[text]


def tile_of(text: str) -> Tile:
    """Read --tile into what `MidwayNetwork.flow` takes."""
    if text in ("default", "training", "whole"):
        return None if text == "whole" else text  # type: ignore[return-value]  # the two are what the type says
    return size_of(text, "--tile must be HEIGHTxWIDTH in pixels, such as 320x384, 'training' or 'whole'")


def slide_of(text: str) -> tuple[int, int] | Literal["default"] | None:
    """Read --slide into what `MidwayNetwork.segment` takes."""
    if text in ("default", "whole"):
        return "default" if text == "default" else None
    return size_of(text, "--slide must be SIDExSTEP in pixels, such as 512x341, or 'whole'")


def size_of(text: str, wanted: str) -> tuple[int, int]:
    """Read two whole numbers with `x` or a comma between them; `wanted` begins the error's sentence."""
    sides = text.lower().replace("x", ",").split(",")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise ValueError(f"{wanted}; got {text!r}")
    return int(sides[0]), int(sides[1])


def load_network(model: str, *, dtype: str, device: str | None, offline: bool) -> Any:
    """Load a network where it is to run, and say so when its weights are untrained."""
    from midway_hub.extraction import choose_device
    from midway_hub.models.network import MidwayNetwork
    from midway_hub.registry import get_entry, list_models

    precision = dtype_of(dtype)
    if model in list_models() and not get_entry(model).trained:
        console.warning(f"{model} holds untrained weights: the numbers show that everything runs, no more")
    with console.download_lines():
        return MidwayNetwork.from_pretrained(
            model, dtype=precision, device=choose_device(device), local_files_only=offline
        )


def fetched(inputs: list[str]) -> list[str]:
    """Replace URLs by files of the cache, as old as their servers allow."""
    from midway_hub.url_cache import cached_download

    with console.download_bars():
        return [str(cached_download(text)) if text.startswith(("http://", "https://")) else text for text in inputs]
