"""Read a file of `torch.save` one tensor at a time, trusting none of its sizes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from midway_hub.convert.records import ConversionError, StoredTensor, printable
from midway_hub.convert.restricted_pickle import MAX_PICKLE_BYTES, load_data

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch < 1.6 wrote first, after the protocol
_ENCRYPTED = 1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_FETCH_AGAIN = "Fetch the file again and compare its size and checksum with the publisher's."


def itemsize(stored: StoredTensor) -> int:
    """Bytes per element of a floating-point tensor.

    Raises:
        ConversionError: The tensor's type is not a floating-point type that can be read.
    """
    if stored.dtype not in DTYPES:
        raise ConversionError(f"a tensor has dtype {stored.dtype}; wanted one of {', '.join(DTYPES)}")
    return DTYPES[stored.dtype].itemsize


def numel(stored: StoredTensor) -> int:
    """Number of elements that the tensor's shape stands for."""
    count = 1
    for length in stored.shape:
        count *= length
    return count


def nbytes(stored: StoredTensor) -> int:
    """Bytes that the tensor takes in memory."""
    return numel(stored) * itemsize(stored)


def _check_first_bytes(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if head.startswith(b"PK\x03\x04"):
        return
    if not head:
        seen = "is empty (0 bytes)"
    elif _LEGACY_MAGIC in head[:16]:
        raise ConversionError(
            f"{path} is in the format that torch wrote before version 1.6, which cannot be read without trusting it. "
            "If you do trust it, re-save it: `torch.save(torch.load(path, weights_only=False), new_path)`"
        )
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        seen = "is a web page, not a checkpoint (the download gave an error page?)"
    elif text.startswith(b"version https://git-lfs"):
        seen = "is a Git LFS pointer, not the file it stands for (run `git lfs pull`)"
    elif len(head) > 9 and head[8:9] == b"{" and head[6:8] == b"\0\0":
        raise ConversionError(f"{path} is a safetensors file: it needs no conversion, load it directly")
    else:
        seen = f"starts with {head[:8]!r}"
    raise ConversionError(f"{path} {seen}; wanted a file of torch.save (a zip archive). {_FETCH_AGAIN}")


class TorchArchive:
    """The records of one file of `torch.save`, read one at a time. Use as a context manager.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ConversionError: The file is not an archive of `torch.save`, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ConversionError(f"{path} is a folder; wanted the .pth file itself")
        _check_first_bytes(path)
        self.path = path
        self._size = path.stat().st_size
        self._file = path.open("rb")
        try:
            self._records = self._read_directory()
            self._root = self._find_root()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def load(self) -> Any:
        """Read the pickled object: see `load_data`."""
        if self._has("byteorder") and self._read_record("byteorder") != b"little":
            raise ConversionError(f"{self.path} was written on a big-endian machine, which is not supported")
        try:
            return load_data(bytes(self._read_record("data.pkl", limit=MAX_PICKLE_BYTES)))
        except ConversionError as error:
            raise type(error)(f"{self.path}: {error}") from error

    def read(self, stored: StoredTensor) -> torch.Tensor:
        """Read one tensor.

        Args:
            stored: What `load` returned for it.

        Returns:
            The tensor in memory of its own, contiguous, with its stored dtype.

        Raises:
            ConversionError: The tensor does not fit its storage, or the storage is missing or damaged.
        """
        name, size = f"data/{stored.storage.key}", itemsize(stored)
        count, length = numel(stored), stored.storage.numel
        reach = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True)) + 1
        if count > length or (count and reach > length):
            raise ConversionError(
                f"{self.path}: a tensor of shape {stored.shape}, stride {stored.stride} and offset {stored.offset} "
                f"does not fit its storage of {length} elements"
            )
        raw = self._read_record(name, limit=length * size)
        if len(raw) != length * size:
            raise ConversionError(f"{self.path}: record {name} has {len(raw)} bytes; wanted {length * size}")
        if not count:
            return torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
        flat = torch.frombuffer(raw, dtype=DTYPES[stored.dtype])
        view = flat.as_strided(stored.shape, stored.stride, stored.offset)
        tensor = view.clone(memory_format=torch.contiguous_format)
        return tensor.neg_() if stored.negated else tensor

    def _read_directory(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise ConversionError(f"{self.path} is truncated or damaged ({error}). {_FETCH_AGAIN}") from error
        records = {info.filename: info for info in infos}
        if len(records) != len(infos):
            raise ConversionError(f"{self.path} holds two records of the same name, which torch.save never writes")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED for info in infos):
            raise ConversionError(f"{self.path} holds compressed or encrypted records, which torch.save never writes")
        if sum(info.file_size for info in infos) > self._size:
            raise ConversionError(f"{self.path} has {self._size} bytes but declares records of more. {_FETCH_AGAIN}")
        return records

    def _find_root(self) -> str:
        roots = [name.removesuffix("data.pkl") for name in self._records if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ConversionError(
                f"{self.path} is a zip archive with {len(roots)} records called data.pkl; wanted one, as in every file "
                "of torch.save"
            )
        if roots[0] + "constants.pkl" in self._records:
            raise ConversionError(f"{self.path} is a TorchScript program; wanted a checkpoint of torch.save")
        return roots[0]

    def _has(self, name: str) -> bool:
        return self._root + name in self._records

    def _read_record(self, name: str, *, limit: int = 64) -> bytearray:
        """Read a stored record, allocating no more than both the directory and `limit` allow."""
        info = self._records.get(self._root + name)
        if info is None:
            raise ConversionError(f"{self.path} has no record {printable(name)}. {_FETCH_AGAIN}")
        if info.file_size > limit:
            raise ConversionError(f"{self.path}: record {name} has {info.file_size} bytes; wanted at most {limit}")
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        data = bytearray(info.file_size)
        if len(header) == _LOCAL_HEADER.size:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            self._file.seek(name_length + extra_length, 1)
            complete = signature == b"PK\x03\x04" and self._file.readinto(data) == info.file_size
        else:
            complete = False
        # torch.serialization.set_crc32_options(False) writes a checksum of 0.
        if not complete or (info.CRC and zlib.crc32(data) != info.CRC):
            raise ConversionError(f"{self.path}: record {name} is damaged. {_FETCH_AGAIN}")
        return data
