"""Segmentation of folders and lists of images and videos, a file each, which a later run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image

from midway_hub.dense.folder_record import claim_folder, fingerprint_files
from midway_hub.dense.label_files import LabelLook, write_image_labels, write_video_labels
from midway_hub.dense.writing import Progress, no_progress
from midway_hub.extraction.plan import output_folder
from midway_hub.extraction.provenance import network_digest
from midway_hub.extraction.sources import Source
from midway_hub.models.network import MidwayNetwork
from midway_hub.video import VideoError

logger = logging.getLogger("midway_hub")

RECORD = "classes.json"
ENDINGS = {"image": ".png", "video": ".mp4"}
FAILURES = (VideoError, ValueError, torch.OutOfMemoryError, FileNotFoundError, Image.UnidentifiedImageError)
DEFAULT_LOOK = LabelLook()


@dataclass
class LabelFolder:
    """What was done.

    Attributes:
        out: The folder of the pictures and videos.
        labels: The folder of the label maps, if any.
        done: Names of the sources whose files were written by this run.
        skipped: Names of those whose files were there.
        failed: Why a source, by its name, has no files.
    """

    out: Path
    labels: Path | None
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What to tell the user, as plain data."""
        return {
            "out": str(self.out),
            "labels": None if self.labels is None else str(self.labels),
            "files": len(self.done),
            "finished_before": len(self.skipped),
            "failed": self.failed,
        }


def write_label_folder(
    net: MidwayNetwork,
    sources: Sequence[Source],
    out: str | Path,
    *,
    labels_out: str | Path | None = None,
    every: int = 1,
    reader: str = "auto",
    look: LabelLook = DEFAULT_LOOK,
    overwrite: bool = False,
    progress: Progress = no_progress,
    **estimation: Any,
) -> LabelFolder:
    """Write the classes of every image as OUT/NAME.png and of every video as OUT/NAME.mp4.

    Files that are there are not made again: a run that was stopped goes on. `classes.json` keeps what they were made of
    and how, and refuses others.

    Args:
        net: A network with a segmentation head.
        sources: From `find_sources`.
        out: A folder; made if need be.
        labels_out: Folder for label maps, if any: NAME.png of an image, NAME/000000.png of a video.
        every: Of a video, take every k-th frame.
        reader: Video reader, or "auto".
        look: How the pictures look.
        overwrite: Whether to make everything anew, whatever is there.
        progress: Called with "files", how many are done, and how many there are.
        **estimation: `size` and `slide`, as for `labels_of`.

    Returns:
        What was done. Where a source fails, the others go on.

    Raises:
        ValueError: Two sources of one name, or a folder that is read from.
        OutputExistsError: The folder holds files that were made otherwise, or of something else.
        MissingHeadError: The network has no segmentation head.
        OSError: A file cannot be written.
    """
    net.require_segmentation_head()
    folder = output_folder(out)
    maps = None if labels_out is None else output_folder(labels_out)
    names = _names(sources)
    _check_not_input(sources, names, [place for place in (folder, maps) if place is not None])
    made_of = {source.name: fingerprint_files(source.paths) for source in sources}
    request = _request(net, every, look, estimation)
    claim_folder(folder, RECORD, made_of, request, overwrite=overwrite)
    result = LabelFolder(folder, maps)
    options = {"look": look, **estimation}
    for done, (source, name) in enumerate(zip(sources, names, strict=True)):
        progress("files", done, len(sources))
        places = folder / f"{name}{ENDINGS[source.kind]}", _map_place(source, name, maps)
        if not overwrite and all(place is None or place.exists() for place in places):
            result.skipped.append(source.name)
            continue
        try:
            _write(net, source, *places, every, reader, options)
        except FAILURES as error:
            logger.debug("%s failed", source, exc_info=True)
            result.failed[source.name] = str(error) or type(error).__name__
        else:
            result.done.append(source.name)
    progress("files", len(sources), len(sources))
    return result


def _write(
    net: MidwayNetwork, source: Source, out: Path, labels: Path | None, every: int, reader: str, options: dict[str, Any]
) -> None:
    for place in (out, labels):
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
    if source.kind == "image":
        write_image_labels(net, source.paths[0], out, labels_out=labels, **options)
    else:
        write_video_labels(net, source.paths[0], out, labels_out=labels, every=every, reader=reader, **options)


def _names(sources: Sequence[Source]) -> list[str]:
    """Return what the files of each source are called, without their ending."""
    names: dict[tuple[str, str], Source] = {}
    for source in sources:
        key = (PurePosixPath(source.name).with_suffix("").as_posix(), source.kind)
        if (first := names.setdefault(key, source)) is not source:
            raise ValueError(
                f"{first} and {source} would both be written to {key[0]}{ENDINGS[source.kind]}; run them with "
                "different output folders"
            )
    return [name for name, _ in names]


def _map_place(source: Source, name: str, maps: Path | None) -> Path | None:
    if maps is None:
        return None
    return maps / (f"{name}.png" if source.kind == "image" else name)


def _check_not_input(sources: Sequence[Source], names: Sequence[str], folders: Sequence[Path]) -> None:
    read = {path.resolve() for source in sources for path in source.paths}
    for source, name in zip(sources, names, strict=True):
        for folder in folders:
            if (place := folder / f"{name}{ENDINGS[source.kind]}").resolve() in read:
                raise ValueError(f"{place} cannot be written: it is what is read; choose another folder")


def _request(net: MidwayNetwork, every: int, look: LabelLook, estimation: Mapping[str, Any]) -> dict[str, Any]:
    """What the files depend on beside their frames."""
    return {
        "network_sha256": network_digest(net),
        "dtype": str(net.dtype).removeprefix("torch."),
        "every": every,
        "look": [look.opacity, look.legend, look.beside],
        **{"size": None, "slide": "default", **estimation},
    }


__all__ = ["LabelFolder", "write_label_folder"]
