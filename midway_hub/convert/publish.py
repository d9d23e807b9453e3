"""Write a checkpoint folder so that it is seen whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from midway_hub._durable import sync
from midway_hub.convert.archive import itemsize, nbytes
from midway_hub.convert.records import ConversionError, StoredTensor

_SAFETENSORS_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def check_destination(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder whose content a conversion would lose.

    Args:
        folder: The destination; it need not exist.
        overwrite: Whether a converted checkpoint there may be replaced.

    Raises:
        ConversionError: The folder is a file, is not empty, or holds something else than a checkpoint.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ConversionError(f"{folder} exists and is not a folder; choose another destination")
    held = sorted(path.name for path in folder.iterdir())
    if not held:
        return
    if not overwrite:
        raise ConversionError(
            f"{folder} is not empty ({len(held)} entries, such as {held[0]}); choose another destination, or pass "
            "overwrite=True to replace a checkpoint there"
        )
    if "config.json" not in held or any(path.is_dir() for path in folder.iterdir()):
        raise ConversionError(
            f"{folder} does not look like a converted checkpoint (a config.json and no sub-folders), so it is not "
            "overwritten; choose another destination"
        )


@contextmanager
def published(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a hidden folder beside `folder` that takes its place when the block ends without an error.

    Args:
        folder: The destination.
        overwrite: Whether a checkpoint there may be replaced. Its weights and what the block writes anew are; other
            files in it, such as a README.md, stay.

    Yields:
        The hidden folder. What a killed run leaves of it (`.NAME.*.partial`) is never read and may be deleted.

    Raises:
        ConversionError: The destination is refused (see `check_destination`), or writing failed.
    """
    folder = Path(os.path.realpath(folder))
    check_destination(folder, overwrite=overwrite)
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        staging.mkdir(parents=True)
        yield staging
        if folder.is_dir():
            _carry_over(folder, staging)
        for path in (*staging.iterdir(), staging):
            sync(path)
        _replace(folder, staging)
        sync(folder.parent)
    except OSError as error:
        raise ConversionError(f"converting into {folder} failed and left nothing there: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_tensors(
    path: Path,
    tensors: Mapping[str, StoredTensor],
    metadata: Mapping[str, str],
    read: Callable[[StoredTensor], torch.Tensor],
) -> dict[str, str]:
    """Write a safetensors file, holding one tensor at a time in memory.

    The safetensors library writes metadata in random order and wants all tensors at once; equal input gives equal bytes
    here.

    Args:
        path: The file.
        tensors: What to write, by name.
        metadata: The file's own metadata.
        read: Reads one tensor.

    Returns:
        sha256 of each tensor's bytes (contiguous, little-endian), by name.

    Raises:
        ConversionError: A tensor holds NaN or infinity; the message names all that do.
    """
    names = sorted(tensors, key=lambda name: (-itemsize(tensors[name]), name))  # keeps every tensor aligned
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        stored = tensors[name]
        start, end = end, end + nbytes(stored)
        dtype = _SAFETENSORS_DTYPES[stored.dtype]
        header[name] = {"dtype": dtype, "shape": list(stored.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digests, broken = {}, []
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = read(tensors[name])
            if not torch.isfinite(tensor).all():
                broken.append(name)
            data = tensor.reshape(-1).view(torch.uint8).numpy()
            digests[name] = hashlib.sha256(data).hexdigest()
            file.write(data)
    if broken:
        raise ConversionError(f"{len(broken)} tensors hold NaN or infinity: {', '.join(broken[:20])}")
    return digests


def _carry_over(old: Path, new: Path) -> None:
    for path in old.iterdir():
        is_weights = path.name.endswith((".safetensors", ".safetensors.index.json"))
        if not is_weights and not (new / path.name).exists():
            shutil.copy2(path, new / path.name)


def _replace(folder: Path, staging: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        staging.rename(folder)
        return
    old = staging.with_suffix(".old")
    folder.rename(old)
    try:
        staging.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
