"""Reading with decord, for the files in which it finds every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from midway_hub.video.errors import VideoError
from midway_hub.video.index import VideoIndex
from midway_hub.video.reader import BaseReader
from midway_hub.video.torchcodec_reader import SEEKABLE_FORMATS, peculiarity

_CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "prores", "vp8", "vp9"}


class DecordReader(BaseReader):
    """decord 0.6; it conceals damaged pictures and hands them out without an error."""

    name = "decord"
    package = "decord"
    reports_damage = False

    def __init__(self, index: VideoIndex, *, num_threads: int) -> None:
        super().__init__(index, num_threads=num_threads)
        import decord

        try:
            self._decoder = decord.VideoReader(str(index.path), ctx=decord.cpu(0), num_threads=num_threads)
        except (RuntimeError, AssertionError) as error:
            raise VideoError(f"{index.path}: decord cannot open it: {error}") from error
        if len(self._decoder) != len(index):
            count = len(self._decoder)
            raise VideoError(f"{index.path}: decord counts {count} frames of {len(index)}; use reader='auto'")

    @staticmethod
    def refusal(index: VideoIndex) -> str | None:
        packets = index.packets
        if packets is None or index.format not in SEEKABLE_FORMATS:
            return f"it does not find frames exactly in a file of format {index.format!r}"
        if index.codec not in _CODECS:
            return f"it is not known to decode {index.codec} exactly"
        if not index.is_default_stream:
            return "it cannot choose a stream"
        if index.cut:
            return f"it does not open such files: {index.cut}"
        if packets.discard.any():
            return "it ignores edit lists, and this file's hides some of its pictures"
        if packets.leading.any() or not index.only_idr:
            return "it loses frames around key frames that do not reset the decoder (open GOP), which this file has"
        return peculiarity(index)

    def _read(self, indices: Sequence[int]) -> np.ndarray:
        import decord

        try:
            return self._decoder.get_batch(list(indices)).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            if len(indices) > 1:  # to name the frame
                return np.concatenate([self._read([index]) for index in indices])
            raise VideoError(f"{self.path}: frame {indices[0]} cannot be decoded: {error}") from error

    def _release(self) -> None:
        del self._decoder
