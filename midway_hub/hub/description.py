"""What a checkpoint is, read off its small files and the headers of its weights: nothing large is downloaded."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from midway_hub.cards import CARD
from midway_hub.config import MidwayConfig
from midway_hub.hub import checksums, local
from midway_hub.hub.repository import Repository, commit_of
from midway_hub.hub.resolution import as_path, split_revision
from midway_hub.hub.weight_files import CONFIG, check_safetensors, read_object, weight_files

PROCESSOR = "preprocessor_config.json"
CONVERSION = "conversion.json"


@dataclass(frozen=True)
class Weights:
    """What the weight files hold.

    Attributes:
        parameters: Numbers in all tensors.
        dtypes: How many of them are of each precision, by safetensors' name for it.
        files: Name and size in bytes of each file.
    """

    parameters: int
    dtypes: dict[str, int]
    files: dict[str, int]


@dataclass(frozen=True)
class Description:
    """What a checkpoint is.

    Attributes:
        source: Where it is, in words.
        directory: The folder that holds its small files.
        commit: Of a Hub repository, its commit.
        config: Its architecture and heads.
        weights: None: they have not been downloaded.
        processor: How it wants frames, as `MidwayImageProcessor` takes it; None: it does not say.
        origin: What it was converted from, if it was.
        card: Its model card, Markdown; empty if it has none.
    """

    source: str
    directory: Path
    commit: str | None
    config: MidwayConfig
    weights: Weights | None
    processor: dict[str, Any] | None
    origin: dict[str, Any] | None
    card: str


def describe(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Description:
    """Say what a folder, file or Hub repository holds. Of a repository, weights are described if they are cached.

    Args:
        name_or_path: As for `resolve`, but for registry names, which have entries and cards of their own.
        revision: As for `resolve`.
        cache_dir: As for `resolve`.
        local_files_only: As for `resolve`.
        token: As for `resolve`.

    Raises:
        As `resolve`.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    path = as_path(name_or_path)
    if path is None:
        name, revision = split_revision(str(name_or_path), revision)
        config = Repository(name, revision, cache, local_files_only, token).fetch_description()
        return _described(f"Hub repo {name}", config.parent, commit=commit_of(config, CONFIG))
    if revision is not None:
        raise ValueError(f"revision={revision!r} needs a Hub repository, and {path} is a local path.")
    if path.is_dir():
        local.open_directory(path)
        return _described(f"folder {path}", path)
    staged, _ = local.open_file(path, checksums.cache_root(cache))
    return _described(f"file {path}", staged)


def _described(source: str, folder: Path, *, commit: str | None = None) -> Description:
    conversion = _optional(folder / CONVERSION)
    return Description(
        source=source,
        directory=folder,
        commit=commit,
        config=MidwayConfig.from_dict(read_object(folder / CONFIG)),
        weights=_weights_of(folder),
        processor=_optional(folder / PROCESSOR),
        origin=conversion.get("source") if conversion else None,
        card=(folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else "",
    )


def _optional(path: Path) -> dict[str, Any] | None:
    return read_object(path) if path.is_file() else None


def _weights_of(folder: Path) -> Weights | None:
    files = weight_files(folder)
    if not files or not all(path.is_file() for path in files):
        return None
    dtypes: Counter[str] = Counter()
    for path in files:
        check_safetensors(path)
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                tensor = tensors.get_slice(name)
                dtypes[tensor.get_dtype()] += prod(tensor.get_shape())
    return Weights(sum(dtypes.values()), dict(dtypes), {path.name: path.stat().st_size for path in files})
