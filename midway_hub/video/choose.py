"""Opening a video with the reader that suits it."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
from importlib import metadata
from pathlib import Path

from midway_hub.video.container import index_video
from midway_hub.video.decord_reader import DecordReader
from midway_hub.video.errors import VideoError
from midway_hub.video.index_cache import cached_index
from midway_hub.video.pyav_reader import PyAVReader
from midway_hub.video.reader import BaseReader, FrameReader
from midway_hub.video.still_reader import StillReader
from midway_hub.video.torchcodec_reader import TorchCodecReader

logger = logging.getLogger("midway_hub")

READERS: dict[str, type[BaseReader]] = {r.name: r for r in (PyAVReader, TorchCodecReader, DecordReader)}
"""All readers by name, the fastest first; benchmarks/video.py measures them (the first two are level)."""


def open_video(
    path: str | os.PathLike[str],
    *,
    reader: str = "auto",
    stream: int | None = None,
    num_threads: int = 0,
    index_cache: str | os.PathLike[str] | None = None,
) -> FrameReader:
    """Open a video for frame-exact reading; use the result as a context manager. A picture is a video of one frame.

    `"auto"` takes the fastest installed reader that is known to be exact for this file. That includes that a damaged
    picture is an error: decord and torchcodec hand out a concealed one in its place, so they are only used when asked
    for. A reader that is known to return wrong frames of this file is refused.

    Args:
        path: A local video file.
        reader: "auto", "pyav", "decord" or "torchcodec".
        stream: Index of a video stream within the container; None for the one that FFmpeg picks.
        num_threads: Decoding threads, 0 for the decoder's choice; 1 is best where many processes read.
        index_cache: Folder that keeps the list of frames, for which else the whole file is read at every opening: for
            those who open a video again and again. Lists of files that have changed are made anew. Default: none.

    Returns:
        The open reader.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such reader, or `num_threads` is negative.
        VideoError: The file cannot be opened, has no such stream, or the reader asked for is missing or would be wrong.
    """
    if reader != "auto" and reader not in READERS:
        close = difflib.get_close_matches(str(reader), ["auto", *READERS])
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown reader {reader!r}, the readers are 'auto', {', '.join(map(repr, READERS))}{hint}")
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 0:
        raise ValueError(f"num_threads must be 0 (automatic) or a positive integer, got {num_threads!r}")
    index = (
        index_video(Path(path), stream) if index_cache is None else cached_index(Path(path), stream, Path(index_cache))
    )
    if index.still and reader in ("auto", PyAVReader.name):
        return StillReader(index, num_threads=num_threads)
    if index.cut and index.packets is not None:
        logger.warning("%s: only the first %d frames can be read: %s", path, len(index), index.cut)
    if reader == "auto":
        chosen = next(r for r in READERS.values() if r.reports_damage and not r.refusal(index) and not _obstacle(r))
        return chosen(index, num_threads=num_threads)
    asked = READERS[reader]
    if obstacle := _obstacle(asked):
        raise VideoError(f"{path}: reader {reader!r} cannot be used here: {obstacle}; use reader='auto'")
    if reason := asked.refusal(index):
        raise VideoError(f"{path}: reader {reader!r} is not exact for this file: {reason}; use reader='auto'")
    return asked(index, num_threads=num_threads)


def available_readers() -> dict[str, str]:
    """The version of every reader's package, or why it cannot be used.

    Returns:
        Reader name -> version, or a reason that starts with "not installed" or "cannot be imported".
    """
    return {name: _obstacle(reader) or metadata.version(reader.package) for name, reader in READERS.items()}


def _obstacle(reader: type[BaseReader]) -> str | None:
    try:
        importlib.import_module(reader.package)
    except ModuleNotFoundError as error:
        if error.name == reader.package:
            return f"not installed (pip install {reader.package})"
        return f"cannot be imported: {error}"
    except Exception as error:  # a shared library that does not load fails in the package's own way
        return f"cannot be imported: {str(error).strip().splitlines()[0]}"
    return None
