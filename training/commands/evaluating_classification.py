"""The command that measures features of whole pictures: evaluate classification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Dtype, load_network
from midway_hub.training.commands._common import Json, command
from midway_hub.training.commands._evaluating import show

app = typer.Typer()


@command(app)
def classification(
    root: Annotated[Path, typer.Option(help="Folder of pictures: train/CLASS/ and val/CLASS/, or CLASS/ to be split.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Checkpoint: name, repo, folder or file.")],
    features: Annotated[str, typer.Option(help="cls, mean (of the patches) or both.")] = "cls",
    size: Annotated[int, typer.Option(help="Side in pixels of the square that pictures are cropped to.")] = 224,
    neighbours: Annotated[int, typer.Option(help="Training pictures that vote.")] = 20,
    test_share: Annotated[float, typer.Option(help="Share of every class to test on, where there is no val/.")] = 0.2,
    batch: Annotated[int, typer.Option(help="Pictures encoded at a time.")] = 16,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for results.json and features; goes on where it was.")
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Measure frozen features on your own classes: k nearest neighbours and a linear classifier, in one go.

    Nothing of the network is trained. The numbers say what its features hold of your pictures.

    Example: evaluate classification --root flowers -m midway_vits_bdd100k -o results/flowers
    """
    from midway_hub import MidwayImageProcessor
    from midway_hub.training.evaluation.classification.evaluate import classification_tables, evaluate_classification
    from midway_hub.training.evaluation.classification.features import network_encoder
    from midway_hub.training.evaluation.classification.pictures import read_pictures

    pictures = read_pictures(root, test_share=test_share)
    network = load_network(model, device=device, dtype=dtype, offline=False)
    own = network.image_processor
    processor = MidwayImageProcessor(
        fit="crop", size=size, multiple=own.multiple, image_mean=own.image_mean, image_std=own.image_std
    )
    encoder = network_encoder(network, processor, name=model, kind=features)  # type: ignore[arg-type]  # checked there
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with console.step_bars() as bars:
        result = evaluate_classification(encoder, pictures, neighbours=neighbours, batch=batch, out=out, progress=bars)
    show(result, classification_tables(result), out=None, as_json=as_json)
