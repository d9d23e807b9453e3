"""The commands `midway-hub flow` and `midway-hub segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from midway_hub import _console as console
from midway_hub._options import (
    Device,
    Dtype,
    Every,
    Json,
    Model,
    Offline,
    Overlap,
    Reader,
    Size,
    SlideText,
    TileText,
    fetched,
    load_network,
    slide_of,
    tile_of,
)
from midway_hub.registry import DEFAULT_MODEL

FAST_UPDATES = 4
Legend = Annotated[bool, typer.Option("--legend/--no-legend", help="Explain the colours in a corner.")]


def flow(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Two images of one size; videos; folders of frames or videos; .txt lists with two images a line; "
            "http(s) URLs too.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Of two images: numbers (.flo .pfm .flo5 .npy .npz) or a colour picture (.png .jpg). Of a video or a "
            "folder of frames: .mp4 .webm .gif. Of anything: a folder, for numbered files; run again to go on.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="Files of an output folder: flo, pfm, flo5, npy, npz, png (colours), kitti (16-bit .png); or several, "
            "such as flo,png."
        ),
    ] = "flo",
    picture: Annotated[Path | None, typer.Option(help="Of two images: write a colour picture as well.")] = None,
    kitti: Annotated[
        bool, typer.Option("--kitti", help="Write -o FILE.png as KITTI's 16-bit numbers, not as a colour picture.")
    ] = False,
    arrows: Annotated[bool, typer.Option("--arrows", help="Draw arrows over the colours.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the frame to the left of its flow, in pictures and videos.")
    ] = False,
    max_flow: Annotated[
        float | None,
        typer.Option(
            "--max-flow",
            "--scale",
            help="Pixels of motion that get the full colours. Default: what 99% of two images' pixels stay below. In "
            "videos, the first of 1, 2, 5, 10, 20, 50, ... that 99% stay below (median of the last five pairs): it "
            "grows with the motion, never shrinks, and stands in the corner.",
        ),
    ] = None,
    legend: Legend = True,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A checkpoint: registry name, Hub repo, folder or file. Or an estimator by others: dis (OpenCV), "
            "raft_large, raft_small (torchvision, which downloads their weights, or raft_small=FILE; those of "
            "raft_large were finetuned on Sintel, KITTI and HD1K), ptlflow:NAME (with that package; each model's "
            "weights are under its authors' licence). A checkpoint in a folder of such a name: ./dis.",
        ),
    ] = DEFAULT_MODEL,
    compare: Annotated[
        str | None,
        typer.Option(
            help="More estimators, such as dis,raft_small: -o becomes one picture or video of the frames and every "
            "one's flow, side by side under one scale, with its seconds a pair. Each takes those of the other options "
            "that are for its kind."
        ),
    ] = None,
    both: Annotated[
        bool,
        typer.Option(
            "--both", help="Write the flow back as well (NAME_backward) and what is occluded, in white (NAME_occluded)."
        ),
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Half the frames' size, four updates, bfloat16 where this device has it: less exact."
        ),
    ] = False,
    updates: Annotated[
        int | None, typer.Option(help="Updates of a correlation head; default: as the checkpoint says.")
    ] = None,
    every: Every = 1,
    size: Annotated[
        str,
        typer.Option(
            help="Short side in pixels that the network sees frames at, 'half', or 'own' for theirs. Default: what "
            "suits the flow head: a correlation head takes them as they are, another two of its windows or 384 pixels."
        ),
    ] = "default",
    tile: TileText = "default",
    overlap: Overlap = None,
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make all files of an output folder anew, whatever it holds.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write the optical flow between two images, of videos, or of folders of frames, at the frames' own size.

    Of a video every frame is encoded once, and the flow before, carried on, is where the next one starts.
    """
    from midway_hub.dense import FlowLook, find_flow_sources, write_flow_folder, write_pair_flow, write_video_flow

    found = find_flow_sources(fetched(inputs))
    look = FlowLook(max_flow, arrows, legend, side_by_side)
    names = [model] if compare is None else [model, *_names(compare, model)]
    _check_checkpoint_options(names, dtype=dtype, fast=fast)
    if fast:
        size, dtype = _fast(size, dtype, updates, device)
    windows: dict[str, Any] = {"size": _flow_size(size), "tile": tile_of(tile), "overlap": overlap}
    windows |= {} if updates is None else {"updates": updates}
    windows |= {"both": True} if both else {}
    to_folder = out.is_dir() or not out.suffix
    if (kitti or picture) and (to_folder or found[0].clip):
        raise ValueError(
            "--kitti and --picture are for the flow between two images; into a folder: --format kitti or flo,png"
        )
    if not to_folder and (len(found) > 1 or len(found[0].pairs) > 1):
        raise ValueError(
            f"-o {out} is one file, and there is more than one video or pair; name a folder: -o {out.stem}"
        )
    if compare is not None:
        drawn = both or kitti or picture or arrows or side_by_side or not legend
        if to_folder or drawn:
            raise ValueError(
                "--compare writes one picture or video of all: -o FILE.png or FILE.mp4, without --both, --kitti, "
                "--picture, --arrows, --side-by-side and --no-legend"
            )
    nets = {name: _estimator(name, dtype=dtype, device=device, offline=offline) for name in names}
    net = nets[model]
    if fast and any(map(_takes_updates, nets.values())):
        windows.setdefault("updates", FAST_UPDATES)
    film = {"every": every, "reader": reader, "look": look, **windows}
    if compare is not None:
        facts = _compared(nets, found[0], out, windows, every, reader, max_flow)
    elif found[0].pairs and not to_folder:
        facts = write_pair_flow(net, found[0].pairs[0], out, kitti=kitti, picture=picture, look=look, **windows)
    else:
        with console.step_bars() as bars:
            if to_folder:
                formats = [form.strip() for form in format.split(",")]
                options = {"formats": formats, "overwrite": overwrite, "progress": bars, **film}
                facts = write_flow_folder(net, found, out, **options).facts()
            else:
                assert found[0].clip is not None
                facts = write_video_flow(net, found[0].clip, out, progress=bars, **film)
    _tell(facts, as_json=as_json)


def _names(text: str, model: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len({model, *names}) < 1 + len(names):
        raise ValueError(f"--compare {text} beside --model {model} names one estimator twice; name each once")
    if not names:
        raise ValueError("--compare names estimators, such as dis,raft_small")
    return names


def _estimator(name: str, *, dtype: str, device: str | None, offline: bool) -> Any:
    """Load a checkpoint, or make an estimator by others."""
    from midway_hub.devices import choose_device
    from midway_hub.flow_peers import is_peer, make_peer

    if is_peer(name):
        return make_peer(name, device=choose_device(device), download=not offline)
    return load_network(name, dtype=dtype, device=device, offline=offline)


def _check_checkpoint_options(names: list[str], *, dtype: str, fast: bool) -> None:
    """Refuse options of checkpoints where there is none."""
    from midway_hub.flow_peers import is_peer

    asked = ["--fast"] * fast + [f"--dtype {dtype}"] * (dtype != "float32")
    if asked and all(map(is_peer, names)):
        as_is = "runs as it is" if len(names) == 1 else "run as they are"
        raise ValueError(f"{' and '.join(asked)} is of checkpoints; {' and '.join(names)} {as_is}")


def _takes_updates(net: Any) -> bool:
    from midway_hub import MidwayNetwork

    return isinstance(net, MidwayNetwork) and net.has_flow_head and net.flow_head.config.kind == "correlation"


def _fast(size: str, dtype: str, updates: int | None, device: str | None) -> tuple[str, str]:
    """Choose what is fast where nothing was chosen, and say what."""
    from midway_hub.devices import choose_device, native_bfloat16

    size = "half" if size == "default" else size
    dtype = "bfloat16" if dtype == "float32" and native_bfloat16(choose_device(device)) else dtype
    console.warning(f"fast: size {size}, {dtype}; a correlation head takes {updates or FAST_UPDATES} updates")
    return size, dtype


def _compared(
    nets: dict[str, Any],
    source: Any,
    out: Path,
    windows: dict[str, Any],
    every: int,
    reader: str,
    largest: float | None,
) -> dict[str, Any]:
    from midway_hub.dense.comparison import compare_pair, compare_video, options_by_kind

    estimators = options_by_kind(nets, windows)
    if source.pairs:
        return compare_pair(estimators, source.pairs[0], out, largest=largest)
    with console.step_bars() as bars:
        return compare_video(estimators, source.clip, out, every=every, reader=reader, largest=largest, progress=bars)


def _flow_size(text: str) -> Any:
    if text in ("default", "own", "half"):
        return None if text == "own" else text
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--size must be a number of pixels, or 'own' for the frames' own size, got {text!r}")
    return int(text)


def _tell(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print what was done; what failed, and what users should know, goes to stderr."""
    if as_json:
        console.print_json(facts)
    else:
        said = dict(facts)
        note, failed = said.pop("note", None), said.pop("failed", {})
        compared = said.pop("compared", {})
        console.facts(said)
        if compared:
            rows = [[name, *map(str, figures.values())] for name, figures in compared.items()]
            console.table("compared", ["estimator", "seconds", "mean flow", "distance to the first"], rows)
        if note:
            console.warning(note)
        for name, reason in failed.items():
            console.error(f"{name}: {reason}")
    if facts.get("failed"):
        raise typer.Exit(1)


def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Images, videos, folders of them, .txt lists, http(s) URLs.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Classes over the frame: .png .jpg of an image, .mp4 .webm .gif of a video. Of anything: a folder, "
            "for a file each; run again to go on.",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Write label maps as well, indexed .png of class numbers: a file; of a video, or with -o FOLDER, a "
            "folder."
        ),
    ] = None,
    opacity: Annotated[float, typer.Option(help="Share of the classes' colours over the frame, 0 to 1.")] = 0.6,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the frame to the left of its classes.")
    ] = False,
    legend: Legend = True,
    model: Model = DEFAULT_MODEL,
    every: Every = 1,
    size: Size = None,
    slide: SlideText = "default",
    dtype: Dtype = "float32",
    device: Device = None,
    reader: Reader = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make all files of an output folder anew, whatever it holds.")
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Write the classes of images and videos as colours over their frames, at their own size."""
    from midway_hub.dense import LabelLook, write_image_labels, write_label_folder, write_video_labels
    from midway_hub.extraction import find_sources

    found = find_sources(fetched(inputs)).items
    to_folder = out.is_dir() or not out.suffix
    if len(found) != 1 and not to_folder:
        raise ValueError(f"-o {out} is one file, and there are {len(found)} inputs; name a folder: -o {out.stem}")
    look = LabelLook(opacity, legend, side_by_side)
    options: dict[str, Any] = {"labels_out": labels, "look": look, "size": size, "slide": slide_of(slide)}
    net = load_network(model, dtype=dtype, device=device, offline=offline)
    if found[0].kind == "image" and not to_folder:
        facts = write_image_labels(net, found[0].paths[0], out, **options)
    else:
        options.update(every=every, reader=reader)
        with console.step_bars() as bars:
            if to_folder:
                facts = write_label_folder(net, found, out, overwrite=overwrite, progress=bars, **options).facts()
            else:
                facts = write_video_labels(net, found[0].paths[0], out, progress=bars, **options)
    _tell(facts, as_json=as_json)
