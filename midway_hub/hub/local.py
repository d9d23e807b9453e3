"""Checkpoints on the user's own disk: a folder, or a single safetensors file. They are never changed or removed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from midway_hub._regular import refuse_irregular
from midway_hub.hub.errors import CorruptWeightsError, WeightsNotFoundError
from midway_hub.hub.weight_files import (
    CONFIG,
    WEIGHTS,
    check_config,
    check_directory,
    check_model_type,
    check_safetensors,
    is_pickle,
    parse_json,
    read_object,
)
from midway_hub.registry import of_file

logger = logging.getLogger("midway_hub")

_STARTS = re.compile(r"[./~\\]|[A-Za-z]:[\\/]|file:")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_OWN_FILE = " This file is yours and was left alone: copy, download or save it again."


def looks_like_path(text: str) -> bool:
    """Tell whether somebody who wrote this meant a file or folder rather than a name.

    Args:
        text: What was written.

    Returns:
        Whether it starts as paths do, has more than one folder, or ends as checkpoint files do.
    """
    deep = text.count("/") > 1 or "\\" in text or text.endswith("/")
    return (
        deep or _STARTS.match(text) is not None or text.lower().endswith((".safetensors", ".json")) or is_pickle(text)
    )


def missing_path(path: Path) -> WeightsNotFoundError:
    """Say that a path does not exist, and how far it does.

    Args:
        path: The path that was asked for.

    Returns:
        The error to raise.
    """
    full = path.expanduser().absolute()
    there = next((parent for parent in full.parents if parent.exists()), full.anchor)
    message = f"There is no file or folder {path}: {there} exists, {full.relative_to(there).parts[0]} in it does not."
    name = of_file(path.name)
    if name:
        message += f" That file is published: load it by its registry name, {name!r}."
    return WeightsNotFoundError(message)


def open_directory(directory: Path) -> list[Path]:
    """Check a folder of the user's.

    Args:
        directory: The folder.

    Returns:
        Its weight files.

    Raises:
        WeightsNotFoundError: A file is missing; the message names it.
        CorruptWeightsError: A file is damaged; it was left alone.
        ValueError: The folder holds another model.
    """
    try:
        return check_directory(directory)
    except CorruptWeightsError as error:
        raise CorruptWeightsError(f"{error}{_OWN_FILE}") from error


def open_file(path: Path, root: Path) -> tuple[Path, Path]:
    """Check a single safetensors file, and give a folder that holds it together with its configuration.

    Args:
        path: The file. Its configuration is a `config.json` beside it, or JSON under `config` in its metadata.
        root: What `cache_root` returns; a file that is not called `model.safetensors` is linked there, or, where
            nothing can be written there, in a temporary folder that this process removes when it ends.

    Returns:
        The folder and the weight file in it.

    Raises:
        WeightsNotFoundError: There is no configuration.
        CorruptWeightsError: The file is damaged; it was left alone.
        IrregularFileError: It is a pipe or a device.
        ValueError: It is a pickle, one shard of several, or another model's.
    """
    refuse_irregular(path)
    if is_pickle(path.name):
        raise ValueError(
            f"{path} is a pickled checkpoint, which can run code when it is loaded. Convert it, which runs nothing: "
            f"`midway-hub convert {path} OUT`, then load OUT."
        )
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is not a .safetensors file. Pass one, or the folder that save_pretrained() wrote.")
    if _SHARD.search(path.name):
        raise ValueError(f"{path.name} is one shard of several. Pass the folder that holds them all: {path.parent}")
    try:
        metadata = check_safetensors(path)
    except CorruptWeightsError as error:
        raise CorruptWeightsError(f"{error}{_OWN_FILE}") from error
    beside = path.parent / CONFIG
    refuse_irregular(beside)
    if beside.is_file():
        check_config(beside)
        return (path.parent, path) if path.name == WEIGHTS else _staged(path, read_object(beside), root)
    if "config" not in metadata:
        raise WeightsNotFoundError(
            f"{path} has no configuration: there is no {CONFIG} beside it, and its metadata has no 'config'. "
            f"Put the {CONFIG} of its network into {path.parent}."
        )
    config = _embedded_config(path, metadata["config"])
    check_model_type(config, f"The 'config' in the metadata of {path}")
    return _staged(path, config, root)


def _embedded_config(path: Path, text: str) -> dict[str, Any]:
    where = f"The 'config' in the metadata of {path}"
    try:
        config = parse_json(text)
    except ValueError as error:
        raise CorruptWeightsError(f"{where} is not valid JSON: {error}.{_OWN_FILE}") from error
    if not isinstance(config, dict):
        raise CorruptWeightsError(f"{where} is a JSON {type(config).__name__}, expected an object.{_OWN_FILE}")
    return config


def _staged(path: Path, config: dict[str, Any], root: Path) -> tuple[Path, Path]:
    """A folder as transformers wants it, which holds a file's configuration and a link to the file."""
    path = path.absolute()
    text = json.dumps(config)
    name = hashlib.sha256(f"{path}\0{text}".encode()).hexdigest()[:32]
    try:
        return _fill(root / "files" / name, path, text)
    except OSError as error:
        logger.debug("%s cannot be written (%s): %s is linked in a temporary folder", root, error, path)
        return _fill(_temporary_root() / name, path, text)


def _fill(folder: Path, path: Path, config: str) -> tuple[Path, Path]:
    weights, described = folder / WEIGHTS, folder / CONFIG
    if weights.exists() and weights.samefile(path) and described.read_text(encoding="utf-8") == config:
        return folder, weights
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        link, written = Path(temporary) / WEIGHTS, Path(temporary) / CONFIG
        with contextlib.suppress(OSError, NotImplementedError):
            link.symlink_to(path)
        if not link.exists():
            shutil.copyfile(path, link)
        written.write_text(config, encoding="utf-8")
        written.replace(described)
        link.replace(weights)
    return folder, weights


@functools.cache
def _temporary_root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="midway_hub_"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root
