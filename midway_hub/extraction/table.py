"""Extracted features as one table: a row per frame, whatever files they lie in."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from midway_hub._durable import whole_file
from midway_hub.extraction.sources import StrPath
from midway_hub.extraction.spool import FORMATS, read_metadata

Kind = Literal["cls", "mean"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TABLES = (".npz", ".csv")
SHARED = ("network_sha256", "network", "dtype", "processor")  # what rows must have in common to be compared


@dataclass(frozen=True)
class FeatureTable:
    """Features of frames, one row each, in the order of the files' names and of the frames.

    Attributes:
        sources: Names of the pictures and videos, n of them: a video's name stands in as many rows as it has frames.
        frames: (n,) int64, numbers of the frames in their videos; 0 for pictures.
        timestamps: (n,) float64, their times in seconds; 0 for pictures.
        features: (n, D).
    """

    sources: tuple[str, ...]
    frames: np.ndarray
    timestamps: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.sources)

    def save(self, path: StrPath) -> Path:
        """Write the table, whole or not at all: an .npz (arrays by name), or a .csv that spreadsheets and pandas read.

        Raises:
            ValueError: Another ending.
            FileNotFoundError: There is no such folder.
        """
        path = table_path(path)
        with whole_file(path) as beside:
            if path.suffix == ".npz":
                with beside.open("wb") as file:
                    np.savez(
                        file,
                        sources=np.array(self.sources),
                        frames=self.frames,
                        timestamps=self.timestamps,
                        features=self.features,
                    )
            else:
                with beside.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(self._lines())
        return path

    def _lines(self) -> Iterator[list[object]]:
        yield ["source", "frame", "seconds", *(f"feature_{index}" for index in range(self.features.shape[1]))]
        for source, frame, seconds, row in zip(self.sources, self.frames, self.timestamps, self.features, strict=True):
            yield [source, frame, seconds, *row]


def table_path(path: StrPath) -> Path:
    """Return where a table goes.

    Raises:
        ValueError: Its ending is that of no table.
    """
    path = Path(path)
    if path.suffix not in TABLES:
        raise ValueError(f"a table is written as {' or '.join(TABLES)}, got {path.name!r}")
    return path


def load_features(folder: StrPath, *, kind: Kind = "cls") -> FeatureTable:
    """Read what `extract_features` (`midway-hub features`) wrote as one table.

    Args:
        folder: Its output folder.
        kind: `"cls"`: the CLS token of every frame; `"mean"`: the mean of its patches.

    Returns:
        All frames of all files.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No features in it, features of different networks or processors, or none of the kind asked for.
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; `midway-hub features` makes one")
    files = sorted(path for format in FORMATS for path in folder.rglob(f"*.{format}"))
    parts, first = [], None
    for path in files:
        made = read_metadata(path)
        if made.get("kind") != "features":
            raise ValueError(f"{path} holds no features but {made.get('kind', 'something else')}; name their folder")
        shared = {key: made.get(key) for key in SHARED}
        first = first or (path, shared)
        differing = [key for key in SHARED if shared[key] != first[1][key]]
        if differing:
            raise ValueError(f"{path} and {first[0]} differ in {', '.join(differing)}: rows would not compare")
        name = (path.relative_to(folder).parent / json.loads(made["source_name"])[0]).as_posix()
        parts.append((name, *_columns(path, kind, made["output_format"])))
    if not parts:
        raise ValueError(f"{folder} holds no features; wanted files that `midway-hub features` wrote")
    names, frames, timestamps, features = zip(*parts, strict=True)
    return FeatureTable(
        tuple(name for name, rows in zip(names, frames, strict=True) for _ in rows),
        *(np.concatenate(part) for part in (frames, timestamps, features)),
    )


def _columns(path: Path, kind: Kind, output_format: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a file's columns; no more of it is read than these."""
    wanted = "cls" if kind == "cls" else "last"
    arrays = _arrays(path, ("frame_indices", "timestamps", wanted))
    if wanted not in arrays:
        raise ValueError(f"{path} was written without {wanted!r}; extract with keep={wanted} (--keep {wanted})")
    found = arrays[wanted]
    if kind == "mean":
        patches = found[:, 1:].swapaxes(1, 2) if output_format == "tokens" else found.reshape(*found.shape[:2], -1)
        found = patches.mean(axis=2, dtype=np.float32).astype(found.dtype)
    return arrays["frame_indices"], arrays["timestamps"], found


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118


__all__ = ["KINDS", "FeatureTable", "load_features", "table_path"]
