"""The command that measures features by where labels go: evaluate propagation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midway_hub import _console as console
from midway_hub._options import Device, Dtype
from midway_hub.analysis.propagation_protocols import DEFAULT_PROTOCOL, adjusted, find_protocol
from midway_hub.training.commands._common import Json, command, parsed_options
from midway_hub.training.commands._evaluating import Limit, Out, Pictures

app = typer.Typer()


@command(app)
def propagation(
    dataset: Annotated[
        str, typer.Option(help="davis (2017 val), vip or jhmdb. In masks 0 is the background and 255 does not count.")
    ],
    root: Annotated[Path, typer.Option(help="The data set's folder, as its archive unpacks.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Checkpoint: name, repo, folder or file; or timm:NAME for one of timm's."),
    ],
    protocol: Annotated[
        str, typer.Option(help="dino or cropmae, which has its own numbers per data set; dino_as_released.")
    ] = DEFAULT_PROTOCOL,
    features: Annotated[
        str, typer.Option(help="Of our checkpoints: teacher, student, or backward (refined from the top down).")
    ] = "teacher",
    layer: Annotated[
        int, typer.Option(help="Block from 0, negatives from the last; of backward features a level, -1 the lowest.")
    ] = -1,
    binary_masks: Annotated[
        bool,
        typer.Option("--binary-masks", help="Of davis: masks are of one object, white on black (2016's, 0 and 255)."),
    ] = False,
    out: Out = None,
    limit: Limit = None,
    pictures: Pictures = 8,
    device: Device = None,
    dtype: Dtype = "float32",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Other numbers than the protocol's: -s top_k=10 -s size=short:240."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure features by propagating the first frame's labels: J&F, mIoU or PCK.

    The protocol's name and numbers are stored with every result; those of two protocols are not to be compared. An
    interrupted evaluation goes on with --out, which also gets the predictions as indexed PNGs in DAVIS' naming.

    Examples: evaluate propagation --dataset davis --root /data/DAVIS -m midway_vits_bdd100k -o results/davis

    evaluate propagation --dataset davis --root /data/DAVIS -m timm:vit_small_patch16_224.dino --protocol dino
    """
    from midway_hub.extraction import choose_device
    from midway_hub.training.evaluation.propagation.datasets import DATASETS, davis_sequences
    from midway_hub.training.evaluation.propagation.encoders import load_encoder
    from midway_hub.training.evaluation.propagation.evaluate import evaluate_propagation
    from midway_hub.training.evaluation.propagation.tables import propagation_table
    from midway_hub.training.evaluation.records import plain

    if dataset not in DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if binary_masks and dataset != "davis":
        raise ValueError(f"--binary-masks is for --dataset davis, whose masks are of objects; got {dataset!r}")
    rules = adjusted(find_protocol(protocol, dataset=dataset), parsed_options(options))
    data = davis_sequences(root, binary=True) if binary_masks else DATASETS[dataset](root)
    encoder = load_encoder(
        model,
        features=features,  # type: ignore[arg-type]  # checked there
        layer=layer,
        device=choose_device(device),
        dtype=dtype,  # type: ignore[arg-type]
    )
    with console.step_bars() as bars:
        result = evaluate_propagation(encoder, data, rules, out=out, limit=limit, pictures=pictures, progress=bars)
    if as_json:
        console.print_json(plain(result))
        return
    table = propagation_table(result)
    console.table(table.title, table.header, table.rows)
    if out is not None:
        console.say(f"{out}: results.json, a line per video, predictions, pictures")
