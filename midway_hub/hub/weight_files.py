"""What a safetensors file says of itself, and which files make up a checkpoint folder."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from midway_hub.hub.errors import CorruptWeightsError, WeightsNotFoundError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODEL_TYPE = "midway"

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_LFS_POINTER = b"version https://git-lfs"


def check_safetensors(path: str | Path) -> dict[str, str]:
    """Check that a safetensors file is whole, reading only its header.

    Args:
        path: The file.

    Returns:
        The file's own metadata (text by name); empty if it has none.

    Raises:
        FileNotFoundError: There is no such file.
        CorruptWeightsError: The file is truncated, too long, or no safetensors file; the message says how many bytes
            were seen and how many are expected.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsNotFoundError(f"There is no file {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if start + file.read(len(_LFS_POINTER) - 8) == _LFS_POINTER:
            raise CorruptWeightsError(f"{path} is a Git LFS pointer, not the file it points to. Run `git lfs pull`.")
        if not 2 <= length <= _LONGEST_HEADER:
            raise CorruptWeightsError(
                f"{path} is not a safetensors file: its first 8 of {size} bytes give no header length."
            )
        if size < 8 + length:
            raise CorruptWeightsError(f"{path} is truncated: {size} bytes, and its header alone takes {8 + length}.")
        file.seek(8)
        header = _parse_header(path, file.read(length))
    metadata = header.pop("__metadata__", {})
    expected = 8 + length + _data_bytes(path, header)
    if size != expected:
        fault = "truncated" if size < expected else "longer than its header says"
        raise CorruptWeightsError(f"{path} is {fault}: {size} bytes, expected {expected}.")
    return metadata


def weight_files(directory: Path) -> list[Path]:
    """Name the weight files of a checkpoint folder; they need not exist.

    Args:
        directory: Folder with `model.safetensors`, or with an index of shards.

    Returns:
        `model.safetensors`, or the shards that the index names; empty if the folder has neither.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        return [directory / name for name in shard_names(directory / INDEX)]
    return []


def shard_names(index: Path) -> list[str]:
    """Read which files an index spreads the weights over.

    Args:
        index: A `model.safetensors.index.json`.

    Returns:
        File names, sorted.

    Raises:
        CorruptWeightsError: The index is damaged or names a file outside of its own folder.
    """
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptWeightsError(f"{index} has no 'weight_map' that says which tensor is in which file.")
    names = {str(name) for name in weight_map.values()}
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CorruptWeightsError(f"{index} names {name!r}, which is not a safetensors file of its own folder.")
    return sorted(names)


def check_directory(directory: Path) -> list[Path]:
    """Check that a folder holds a whole checkpoint of this package.

    Args:
        directory: The folder.

    Returns:
        Its weight files.

    Raises:
        WeightsNotFoundError: The configuration, the weights or a shard is missing; the message names it.
        CorruptWeightsError: A file is damaged.
        ValueError: The configuration is another model's.
    """
    held = sorted(path.name for path in directory.iterdir())
    if CONFIG not in held:
        raise WeightsNotFoundError(
            f"{directory} has no {CONFIG}, so it is not a saved MidwayNetwork. It holds: "
            f"{', '.join(held) or 'nothing'}."
        )
    check_config(directory / CONFIG)
    files = weight_files(directory)
    if not files:
        raise WeightsNotFoundError(f"{directory} has neither {WEIGHTS} nor {INDEX}.{_advice(directory, held)}")
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise WeightsNotFoundError(f"{directory} misses {len(missing)} of {len(files)} shards: {', '.join(missing)}.")
    for path in files:
        check_safetensors(path)
    return files


def check_config(path: Path) -> None:
    """Check that a configuration is one of this package.

    Args:
        path: A `config.json`.

    Raises:
        CorruptWeightsError: It is no JSON object.
        ValueError: It belongs to another model.
    """
    model_type = read_object(path).get("model_type")
    if model_type != MODEL_TYPE:
        raise ValueError(f"{path} describes a model of type {model_type!r}; MidwayNetwork loads {MODEL_TYPE!r} only.")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that belongs to a checkpoint.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        CorruptWeightsError: It is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptWeightsError(f"{path} ({path.stat().st_size} bytes) is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path} holds a JSON {type(content).__name__}, expected an object.")
    return content


def is_pickle(name: str) -> bool:
    """Tell from its name whether a file is a pickled checkpoint."""
    return name.lower().endswith(_PICKLES)


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise CorruptWeightsError(f"{path} is damaged: its {len(raw)}-byte header is not valid JSON.") from error
    if not isinstance(header, dict):
        raise CorruptWeightsError(f"{path} is damaged: its header is a JSON {type(header).__name__}, not an object.")
    return header


def _data_bytes(path: Path, header: dict[str, Any]) -> int:
    try:
        return max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptWeightsError(f"{path} is damaged: a tensor in its header has no data offsets.") from error


def _advice(directory: Path, held: list[str]) -> str:
    pickles = [name for name in held if is_pickle(name)]
    if pickles:
        return f" Convert {pickles[0]}: `midway-hub convert {directory / pickles[0]} OUT`."
    others = [name for name in held if name.endswith(".safetensors")]
    if others:
        return f" To load {others[0]}, pass that file: {directory / others[0]}."
    return f" It holds: {', '.join(held)}."
