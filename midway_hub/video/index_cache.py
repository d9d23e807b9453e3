"""Lists of frames kept in a folder, so that a video is walked through once and not at every opening."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import os
import tempfile
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.video.container import index_video
from midway_hub.video.index import Packets, VideoIndex

logger = logging.getLogger("midway_hub")

FORMAT = 1
"""Version of what is written; to be raised with every change of `VideoIndex` or of how it is made."""

_COLUMNS = ("pts", "dts", "size", "key", "discard")
_PLAIN = (
    *("stream", "is_default_stream", "format", "codec", "pixel_format", "width", "height", "matrix", "end"),
    *("only_idr", "announced", "cut"),
)


def cached_index(path: Path, stream: int | None, folder: Path) -> VideoIndex:
    """List the frames of a video, from a folder where its list is kept, or by `index_video`, and keep it there.

    A list is taken for what it says only if the file is the one it was made of (size, times of the last change of
    content and of attributes, to the nanosecond), by the same version of this format and of PyAV, and is whole, which a
    hash tells. Else it is made anew. Lists are written beside and renamed, so that threads, processes and machines may
    share the folder; where it cannot be written, the videos are walked through as without one.

    Args:
        path: The file.
        stream: As for `index_video`.
        folder: Where lists are kept; made if need be.

    Returns:
        What `index_video` returns.

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: As `index_video`; failures are not kept.
    """
    stamp = _stamp(path, stream)
    name = hashlib.sha256(f"{path.absolute()}\n{stream}".encode(errors="surrogateescape")).hexdigest()
    place = folder / name[:2] / name[2:32]
    index = _read(place, path, stamp)
    if index is None:
        index = index_video(path, stream)
        if stamp is not None and _stamp(path, stream) == stamp:  # else it is being written to
            _write(place, index, stamp)
    return index


def _stamp(path: Path, stream: int | None) -> dict[str, Any] | None:
    """What a kept list has to have been made of, and by; None where there is no file."""
    try:
        seen = path.stat()
    except OSError:
        return None
    file = {"size": seen.st_size, "changed": seen.st_mtime_ns, "touched": seen.st_ctime_ns}
    return {"av": metadata.version("av"), "path": str(path.absolute()), "asked": stream, **file}


def _read(place: Path, path: Path, stamp: dict[str, Any] | None) -> VideoIndex | None:
    try:
        data = place.read_bytes()
    except OSError:
        return None
    digest, body = data[:32], data[32:]
    if _digest(body) != digest:
        logger.info("%s: the list of frames of %s is damaged, or of another version; it is made anew", place, path)
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        if stamp is None or facts["stamp"] != json.loads(json.dumps(stamp)):
            return None
        columns = {name: _summed(arrays[name]) for name in arrays.files if name != "facts"}
    index = facts["index"]
    packed = {name: columns[f"packets_{name}"] for name in _COLUMNS} if facts["packets"] else None
    return VideoIndex(
        path=path,
        **{**{name: index[name] for name in _PLAIN}, "matrix": tuple(index["matrix"])},
        time_base=Fraction(*index["time_base"]),
        pts=columns["pts"],
        packets=None if packed is None else Packets(**packed),
    )


def _write(place: Path, index: VideoIndex, stamp: dict[str, Any]) -> None:
    plain = {name: getattr(index, name) for name in _PLAIN}
    plain["time_base"] = [index.time_base.numerator, index.time_base.denominator]
    facts = {"stamp": stamp, "index": plain, "packets": index.packets is not None}
    columns = {"pts": index.pts}
    if index.packets is not None:
        columns.update({f"packets_{name}": getattr(index.packets, name) for name in _COLUMNS})
    body = io.BytesIO()
    arrays: dict[str, Any] = {name: _differences(column) for name, column in columns.items()}
    np.savez_compressed(body, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _put(place, _digest(body.getvalue()) + body.getvalue())
    except OSError as error:
        _say_once(str(place.parent.parent), str(error))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(f"midway-hub video index {FORMAT}\n".encode() + body).digest()


def _put(place: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=place.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _differences(column: np.ndarray) -> np.ndarray:
    """What changes from one row to the next, modulo 2^64: times become almost constant, and pack well."""
    return column if column.dtype == bool else np.diff(column, prepend=np.int64(0))


def _summed(differences: np.ndarray) -> np.ndarray:
    return differences if differences.dtype == bool else np.cumsum(differences, dtype=np.int64)


@functools.cache
def _say_once(folder: str, reason: str) -> None:
    logger.warning(
        "lists of frames cannot be kept in %s (%s): every video is walked through when opened", folder, reason
    )


__all__ = ["FORMAT", "cached_index"]
