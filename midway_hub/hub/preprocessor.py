"""Where a checkpoint says how frames are made for it: `preprocessor_config.json`, found without its weights."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from midway_hub.hub.errors import MissingFromRepositoryError, WeightsNotFoundError
from midway_hub.hub.repository import Repository, commit_of
from midway_hub.hub.resolution import as_path, resolve, split_revision
from midway_hub.hub.weight_files import CONFIG, MODEL_TYPE, PREPROCESSOR, check_safetensors, read_object
from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD, get_entry

PATCH_SIZE = 16
"""What `MidwayConfig` has where a configuration names none."""


@dataclass(frozen=True)
class Preprocessor:
    """What a checkpoint says of its frames.

    Attributes:
        file: Its `preprocessor_config.json`; None: it has none.
        patch_size: Side of its network's patches; None: it is not known, where a processor was saved on its own.
        image_mean: What frames are normalised by where there is no file.
        image_std: Likewise.
    """

    file: Path | None
    patch_size: int | None
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD


def resolve_preprocessor(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Preprocessor:
    """Find how frames are made for a checkpoint, fetching no weights.

    Frames of a registered checkpoint are normalised as the registry says, so that nothing is fetched for it at all.

    Args:
        name_or_path: As for `resolve`; or a processor's own folder or `.json` file.
        revision: As for `resolve`.
        cache_dir: As for `resolve`.
        local_files_only: As for `resolve`.
        token: As for `resolve`.

    Returns:
        The file and the patch size.

    Raises:
        WeightsError: A file could not be had; the message says why and what to do.
        CorruptWeightsError: A file is damaged.
        UnknownModelError: There is no such name; close ones are listed.
        ValueError: The arguments contradict each other.
    """
    path = as_path(name_or_path)
    if path is not None:
        if revision is not None:
            raise ValueError(f"revision={revision!r} is of a Hub repository or registry name; {path} is a local path.")
        return _of_folder(path) if path.is_dir() else _of_file(path)
    name, revision = split_revision(str(name_or_path), revision)
    cache = None if cache_dir is None else Path(cache_dir)
    if name.count("/") == 1:
        return _of_repository(Repository(name, revision, cache, local_files_only, token))
    entry = get_entry(name)
    if entry.bundled or revision is not None:
        found = resolve(
            name, revision=revision, cache_dir=cache, local_files_only=local_files_only, token=token
        ).directory
        return _of_folder(found)
    return Preprocessor(None, entry.architecture.get("patch_size", PATCH_SIZE), entry.mean, entry.std)


def beside(directory: Path, source: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the `preprocessor_config.json` of a checkpoint that was resolved, or None.

    Args:
        directory: The folder that it is loaded from.
        source: What was asked for, where that is a single weight file: what lies beside it goes with it.
    """
    folders = [directory] if source is None or not Path(source).is_file() else [Path(source).parent, directory]
    return next((folder / PREPROCESSOR for folder in folders if (folder / PREPROCESSOR).is_file()), None)


def _of_folder(folder: Path) -> Preprocessor:
    file, config = folder / PREPROCESSOR, folder / CONFIG
    if not file.is_file() and not config.is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise WeightsNotFoundError(
            f"{folder} has neither {PREPROCESSOR} nor {CONFIG}, so it is no saved processor and no saved network. It "
            f"holds: {held}."
        )
    patch_size = _patch_size(read_object(config)) if config.is_file() else None
    return Preprocessor(file if file.is_file() else None, patch_size)


def _of_file(path: Path) -> Preprocessor:
    config = path.parent / CONFIG
    if path.suffix == ".json":
        return Preprocessor(path, _patch_size(read_object(config)) if config.is_file() else None)
    metadata = check_safetensors(path)
    values = read_object(config) if config.is_file() else {}
    if not values and "config" in metadata:
        with contextlib.suppress(ValueError):  # loading the weights says what is wrong with it
            values = json.loads(metadata["config"])
    return Preprocessor(beside(path.parent), _patch_size(values))


def _of_repository(repository: Repository) -> Preprocessor:
    try:
        file = repository.fetch(PREPROCESSOR)
    except MissingFromRepositoryError:
        config = repository.fetch(CONFIG)
        return Preprocessor(None, _patch_size(read_object(config)))
    here = replace(repository, revision=commit_of(file, PREPROCESSOR))
    with contextlib.suppress(MissingFromRepositoryError):
        return Preprocessor(file, _patch_size(read_object(here.fetch(CONFIG))))
    return Preprocessor(file, None)


def _patch_size(config: dict[str, Any]) -> int | None:
    """Read the patch size of a network of this package; another's says nothing."""
    patch_size = config.get("patch_size", PATCH_SIZE) if config.get("model_type") == MODEL_TYPE else None
    return patch_size if isinstance(patch_size, int) and patch_size > 0 else None
