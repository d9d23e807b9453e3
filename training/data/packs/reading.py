"""Reading single frames out of a pack: the bytes that are needed, and no others."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from midway_hub.training.data.packs.forms import FORMS, key_interval
from midway_hub.training.data.packs.layout import PackedVideo
from midway_hub.training.data.packs.settings import PackSettings


class DamagedFrameError(RuntimeError):
    """The stored bytes of a frame are not those that were written, or cannot be decoded."""


class StoredVideo:
    """The frames of one packed video, each read from its own byte range and checked; close it after use.

    Args:
        path: The file that holds it.
        video: Its entry in the manifest.
        rows: Its rows.
        settings: The pack's.
    """

    def __init__(self, path: Path, video: PackedVideo, rows: np.ndarray, settings: PackSettings) -> None:
        self._video, self._rows = video, rows
        self._interval = key_interval(settings)
        self._decode = FORMS[settings.form].decode
        self._file = os.open(path, os.O_RDONLY)

    def frame(self, position: int) -> np.ndarray:
        """Decode one frame.

        Args:
            position: Which of the stored frames, from 0.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            DamagedFrameError: Its bytes are missing, changed, or cannot be decoded.
        """
        needed = self._rows[position - position % self._interval : position + 1]
        try:
            return self._decode(self._parts(needed), self._video)
        except (OSError, ValueError, RuntimeError) as error:
            number = int(self._rows["number"][position])
            raise DamagedFrameError(f"frame {number} of {self._video.name} {error}") from error

    def _parts(self, rows: np.ndarray) -> list[bytes]:
        start = int(rows["offset"][0])
        end = int(rows["offset"][-1]) + int(rows["length"][-1])
        data = os.pread(self._file, end - start, start)
        parts = []
        for _, _, offset, length, crc32 in rows.tolist():
            part = data[offset - start : offset - start + length]
            if len(part) < length:
                raise ValueError(f"is cut off: the file ends after {start + len(data)} bytes, wanted {end}")
            if zlib.crc32(part) != crc32:
                raise ValueError(f"has changed since it was packed (checksum of bytes {offset} to {offset + length})")
            parts.append(part)
        return parts

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
