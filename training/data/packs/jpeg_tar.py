"""The form jpeg: a standard tar file whose members are single pictures."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from midway_hub.training.data.packs.layout import ROW, PackedVideo, PackFolder, StoredFile
from midway_hub.training.data.packs.settings import PackSettings

_BLOCK = tarfile.BLOCKSIZE


class JpegTarWriter:
    """Writes the frames of several videos into one tar file, `NAME/NUMBER.jpg`."""

    def __init__(self, folder: PackFolder, shard: int, settings: PackSettings) -> None:
        self._folder, self._shard = folder, shard
        self._quality = settings.jpeg_quality
        self._part = folder.parts / f"{shard:05d}.{os.getpid()}.tar"
        self._file = self._part.open("wb")
        self._start = 0

    def begin(self, name: str, size: tuple[int, int], run: int) -> None:
        self._name, self._size, self._run = name, size, run
        self._rows: list[tuple[int, float, int, int, int]] = []

    def add(self, picture: np.ndarray, number: int, seconds: float) -> int:
        data = encode_jpeg(picture, self._quality)
        member = tarfile.TarInfo(member_name(self._name, number))
        member.size = len(data)
        self._file.write(member.tobuf(tarfile.PAX_FORMAT))
        self._rows.append((number, seconds, self._file.tell(), len(data), zlib.crc32(data)))
        self._file.write(data + bytes(-len(data) % _BLOCK))
        return len(data)

    def end(self, first_row: int) -> tuple[PackedVideo, np.ndarray]:
        rows = np.array(self._rows, ROW)
        self._start = self._file.tell()
        span = (first_row, first_row + len(rows))
        return PackedVideo(self._name, self._folder.tar_name(self._shard), span, self._run, *self._size), rows

    def discard(self) -> None:
        """Forget what was added since the last `end`."""
        self._file.seek(self._start)
        self._file.truncate()

    def finish(self) -> dict[str, StoredFile]:
        self._file.write(bytes(2 * _BLOCK))
        self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
        self._file.close()
        name = self._folder.tar_name(self._shard)
        return {name: self._folder.publish(self._part, name)}

    def close(self) -> None:
        """Remove what is not finished."""
        with suppress(OSError):  # a full disk shows again
            self._file.close()
        self._part.unlink(missing_ok=True)


def member_name(video: str, number: int) -> str:
    return f"{video}/{number:06d}.jpg"


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """Encode an (H, W, 3) uint8 picture, colour at half the resolution as in the videos it comes from."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def decode_jpeg(parts: Sequence[bytes], video: PackedVideo) -> np.ndarray:
    """Decode one picture to (H, W, 3) uint8 RGB."""
    return (_torchvision_decoder() or _decode_with_pillow)(parts[-1])


@functools.cache
def _torchvision_decoder() -> Callable[[bytes], np.ndarray] | None:
    """Decoding in two thirds of Pillow's time, to the same pixels; None where torchvision has it no more."""
    try:
        import torch
        from torchvision.io import ImageReadMode
        from torchvision.io import decode_jpeg as decode

        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torchvision\.io")

        def decode_with_torchvision(data: bytes) -> np.ndarray:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()

        decode_with_torchvision(encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90))
    except (ImportError, RuntimeError):  # built without libjpeg
        return None
    return decode_with_torchvision


def _decode_with_pillow(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
