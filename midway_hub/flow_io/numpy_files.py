"""Flow in numpy's files: .npy with (H, W, 2), as TartanAir has it, and .npz with `u` and `v` (VIPER) or `flow`."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from typing import IO

import numpy as np

from midway_hub.flow_io.claims import check_claim
from midway_hub.flow_io.field import FlowField

NAMES = ("flow", "u", "v", "valid")
ENCRYPTED = 1  # bit of a zip member's flags
NUMBERS = "fiub"


def decode_npy(data: bytes) -> FlowField:
    """Read an array (H, W, 2); what is not finite is not known.

    Raises:
        ValueError: Not a .npy, a damaged one, or an array of another shape or type.
    """
    return FlowField.of(array_of(data))


def array_of(data: bytes) -> np.ndarray:
    """Read a .npy of numbers.

    Raises:
        ValueError: Not a .npy, a damaged one, one of fewer numbers than its header announces, or of other things.
    """
    try:
        return _read_array(io.BytesIO(data), len(data))
    except ValueError as error:
        raise ValueError(f"no .npy, or a damaged one: {error}") from None


def encode_npy(field: FlowField) -> bytes:
    """Write an array (H, W, 2) float32, NaN where the flow is not known."""
    file = io.BytesIO()
    np.save(file, field.with_unknown(np.nan))
    return file.getvalue()


def decode_npz(data: bytes) -> FlowField:
    """Read `u` and `v` (H, W), or `flow` (H, W, 2), and `valid` (H, W) if there is one.

    Raises:
        ValueError: Not a .npz, a damaged or encrypted one, or one without these arrays.
    """
    arrays, names = _arrays(data)
    if "flow" in arrays:
        flow = arrays["flow"]
    elif "u" in arrays and "v" in arrays:
        if arrays["u"].shape != arrays["v"].shape:
            raise ValueError(f"u has shape {arrays['u'].shape} and v {arrays['v'].shape}; wanted the same")
        flow = np.stack([arrays["u"], arrays["v"]], axis=-1)
    else:
        raise ValueError(f"it has neither u and v nor flow; there are: {', '.join(names) or 'none'}")
    return FlowField.of(flow, arrays.get("valid"))


def encode_npz(field: FlowField) -> bytes:
    """Write `u` and `v`, (H, W) float32, NaN where the flow is not known."""
    file, flow = io.BytesIO(), field.with_unknown(np.nan)
    np.savez_compressed(file, u=flow[..., 0], v=flow[..., 1])
    return file.getvalue()


def _arrays(data: bytes) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the arrays that flow is made of, and list the names of all."""
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("no .npz: it is a single array, as .npy files are")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {name: _member(archive, members[name]) for name in NAMES if name in members}, list(members)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, NotImplementedError) as error:
        raise ValueError(f"no .npz, or a damaged one: {error}") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.flag_bits & ENCRYPTED:
        raise ValueError(f"its member {info.filename} is encrypted; write the file again without a password")
    packed = info.compress_type != zipfile.ZIP_STORED
    with archive.open(info) as file:
        try:
            return _read_array(file, info.compress_size, packed=packed)
        except ValueError as error:
            raise ValueError(f"its member {info.filename} is no array, or a damaged one: {error}") from None


def _read_array(file: IO[bytes], held: int, *, packed: bool = False) -> np.ndarray:
    """Read a .npy of numbers; memory is asked for once its header has proved possible.

    Args:
        file: At its start.
        held: Bytes that all of it has, compressed ones where it is `packed`.
        packed: Whether it is compressed.

    Raises:
        ValueError: It is none, holds no numbers, or fewer than its header says.
    """
    shape, in_columns, dtype = _read_header(file)
    if dtype.kind not in NUMBERS:
        kind = "Python objects, which are not read" if dtype.hasobject else f"{dtype}"
        raise ValueError(f"it holds {kind}; wanted real numbers")
    wanted = check_claim(shape, dtype.itemsize, held if packed else held - file.tell(), packed=packed)
    body = file.read(wanted)
    file.read(1)  # at its end, an archive compares a member with its checksum
    if len(body) != wanted:
        raise ValueError(f"its header says {shape} {dtype}, {wanted:,} bytes; it has {len(body):,}")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if in_columns else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, whether it is stored column by column, and type."""
    start = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    if not start.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError(f"it starts with {start!r}, wanted {np.lib.format.MAGIC_PREFIX!r}")
    readers = {b"\1\0": np.lib.format.read_array_header_1_0, b"\2\0": np.lib.format.read_array_header_2_0}
    version = start[-2:]
    if version not in readers:
        raise ValueError(f"it is of version {list(version)} of the format; wanted 1.0 or 2.0, which hold plain numbers")
    try:
        return readers[version](file)
    except Exception as error:  # numpy reads the header as Python's literals, which fail in all of the language's ways
        raise ValueError(f"its header cannot be read: {error or type(error).__name__}") from None
