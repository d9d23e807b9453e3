"""What a safetensors file says of itself, and which files make up a checkpoint folder."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from midway_hub._messages import shown
from midway_hub._regular import refuse_irregular
from midway_hub.hub.errors import CorruptWeightsError, WeightsNotFoundError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODEL_TYPE = "midway"

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_LFS_POINTER = b"version https://git-lfs"
_MOST_AXES = 16
_DEEPEST = 32  # levels of JSON; a configuration has four
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a whole safetensors file says of itself.

    Attributes:
        metadata: The file's own metadata; empty if it has none.
        shapes: Shape of every tensor by its name.
    """

    metadata: Mapping[str, str]
    shapes: Mapping[str, Shape]


def check_safetensors(path: str | Path) -> dict[str, str]:
    """Check that a safetensors file is whole, reading only its header.

    Args:
        path: The file.

    Returns:
        The file's own metadata (text by name); empty if it has none.

    Raises:
        FileNotFoundError: There is no such file.
        CorruptWeightsError: The file is truncated, too long, or no safetensors file, or its header contradicts itself;
            the message says what was seen and what is expected.
        IrregularFileError: It is a pipe or a device.
    """
    return dict(read_header(path).metadata)


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file, and check that it describes the bytes that follow it to the last one.

    Args:
        path: The file.

    Returns:
        The header.

    Raises:
        FileNotFoundError: As `check_safetensors`.
        CorruptWeightsError: As `check_safetensors`.
        IrregularFileError: As `check_safetensors`.
    """
    path = Path(path)
    refuse_irregular(path)
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
    try:
        metadata = _checked_metadata(header.pop("__metadata__", {}))
        shapes, expected = _checked_tensors(header)
    except ValueError as error:
        raise CorruptWeightsError(f"{path} is damaged: {error}.") from error
    expected += 8 + length
    if size != expected:
        fault = "truncated" if size < expected else "longer than its header says"
        raise CorruptWeightsError(f"{path} is {fault}: {size} bytes, expected {expected}.")
    return Header(metadata, shapes)


def shapes_of(directory: Path) -> dict[str, Shape]:
    """Read the shapes of all tensors of a checkpoint folder.

    Args:
        directory: Folder with weight files.

    Returns:
        Shape of every tensor by its name.

    Raises:
        WeightsError: As `read_header`.
    """
    return {name: shape for path in weight_files(directory) for name, shape in read_header(path).shapes.items()}


def weight_files(directory: Path) -> list[Path]:
    """Name the weight files of a checkpoint folder; they need not exist.

    Args:
        directory: Folder with `model.safetensors`, or with an index of shards.

    Returns:
        `model.safetensors`, or the shards that the index names; empty if the folder has neither.
    """
    refuse_irregular(directory / WEIGHTS)
    refuse_irregular(directory / INDEX)
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
    for path in files:
        refuse_irregular(path)
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
    check_model_type(read_object(path), str(path))


def check_model_type(config: Mapping[str, Any], where: str) -> None:
    """Refuse the configuration of another model.

    Args:
        config: Its content.
        where: What holds it, for the error.

    Raises:
        ValueError: It belongs to another model.
    """
    if config.get("model_type") != MODEL_TYPE:
        hint = ""
        if config.get("model_type") == "midway_conv":
            hint = " Convolutional encoders that training made are loaded by midway_hub.load_encoder."
        raise ValueError(
            f"{where} describes a model of type {shown(config.get('model_type'))}; MidwayNetwork loads {MODEL_TYPE!r} "
            f"only.{hint}"
        )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that belongs to a checkpoint.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        CorruptWeightsError: It is no JSON object.
    """
    refuse_irregular(path)
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise CorruptWeightsError(f"{path} ({path.stat().st_size} bytes) is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"{path} holds a JSON {type(content).__name__}, expected an object.")
    return content


def is_pickle(name: str) -> bool:
    """Tell from its name whether a file is a pickled checkpoint."""
    return name.lower().endswith(_PICKLES)


def parse_json(text: str | bytes) -> Any:
    """Read JSON that a stranger may have written.

    Args:
        text: The JSON, in UTF-8 if it is bytes.

    Returns:
        Its content.

    Raises:
        ValueError: It is not valid, holds a key twice, or is nested more deeply than anything of a checkpoint.
    """
    try:
        content = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_no_key_twice)
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep") from None
    level = [content]
    for _ in range(_DEEPEST):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _items(outer)]
        if not level:
            return content
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _items(outer: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {shown(next(key for key in keys if keys.count(key) > 1))} twice")
    return content


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise CorruptWeightsError(
            f"{path} is damaged: its {len(raw)}-byte header is not valid JSON: {error}."
        ) from error
    if not isinstance(header, dict):
        raise CorruptWeightsError(f"{path} is damaged: its header is a JSON {type(header).__name__}, not an object.")
    return header


def _checked_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"the metadata in its header is {shown(metadata)}, expected text by name")
    return metadata


def _checked_tensors(header: Mapping[str, Any]) -> tuple[dict[str, Shape], int]:
    """Shapes by name, and the number of bytes that all tensors take: one after the other, no gaps, no overlaps."""
    shapes, places = {}, []
    for name, tensor in header.items():
        shapes[name], begin, end = _checked_tensor(name, tensor)
        places.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(places):
        if begin != expected:
            fault = "overlaps the tensor before it" if begin < expected else "leaves a gap before it"
            raise ValueError(
                f"tensor {shown(name)} begins at byte {begin} of the data and {fault}, expected {expected}"
            )
        expected = end
    return shapes, expected


def _checked_tensor(name: str, tensor: Any) -> tuple[Shape, int, int]:
    """Shape, first byte and end of one tensor of a header."""
    if not isinstance(tensor, dict):
        raise ValueError(
            f"tensor {shown(name)} in its header is {shown(tensor)}, expected dtype, shape and data_offsets"
        )
    bits = _BITS.get(str(tensor.get("dtype")))
    if bits is None:
        raise ValueError(
            f"tensor {shown(name)} has the dtype {shown(tensor.get('dtype'))}, expected one of {', '.join(_BITS)}"
        )
    shape, offsets = tensor.get("shape"), tensor.get("data_offsets")
    if not _are_sizes(shape):
        raise ValueError(f"tensor {shown(name)} has the shape {shown(shape)}, expected whole numbers from 0")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"tensor {shown(name)} has the data offsets {shown(offsets)}, expected two whole numbers from 0"
        )
    begin, end = offsets
    wanted = math.prod(shape) * bits // 8
    if end - begin != wanted:
        raise ValueError(
            f"tensor {shown(name)} of shape {shown(shape)} has bytes {shown(begin)} to {shown(end)} of the data, "
            f"expected {shown(wanted)} bytes"
        )
    return tuple(shape), begin, end


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    few = isinstance(values, list) and len(values) <= _MOST_AXES
    return few and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _advice(directory: Path, held: list[str]) -> str:
    pickles = [name for name in held if is_pickle(name)]
    if pickles:
        return f" Convert {pickles[0]}: `midway-hub convert {directory / pickles[0]} OUT`."
    others = [name for name in held if name.endswith(".safetensors")]
    if others:
        return f" To load {others[0]}, pass that file: {directory / others[0]}."
    return f" It holds: {', '.join(held)}."
