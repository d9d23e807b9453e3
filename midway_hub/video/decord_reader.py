"""Reading with decord, for the files in which it finds every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
            return _as_array(self._decoder.get_batch(list(indices)))
        except ImportError as error:  # of the framework that frames are to be handed to
            raise VideoError(
                f"{self.path}: decord is told to hand its frames to another framework, and cannot: "
                f"{' '.join(str(error).split())}; take that "
                "back with decord.bridge.reset_bridge(), or use reader='auto'"
            ) from error
        except (decord.DECORDError, RuntimeError) as error:
            if len(indices) > 1:  # to name the frame
                return np.concatenate([self._read([index]) for index in indices])
            raise VideoError(f"{self.path}: frame {indices[0]} cannot be decoded: {error}") from error

    def _release(self) -> None:
        del self._decoder


def _as_array(frames: Any) -> np.ndarray:
    """Take decord's frames as the bridge hands them out that the program has set in this thread.

    Without one they are decord's own arrays; MXNet's and TVM's know `asnumpy` too, PyTorch's and TensorFlow's `numpy`.
    """
    convert = getattr(frames, "asnumpy", None) or getattr(frames, "numpy", None)
    return np.asarray(frames if convert is None else convert())
