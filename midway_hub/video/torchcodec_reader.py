"""Reading with torchcodec (optional), each frame checked by its time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from midway_hub.video.errors import VideoError
from midway_hub.video.index import VideoIndex
from midway_hub.video.reader import BaseReader

SEEKABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers that store what exact seeking needs; in others decord and torchcodec were seen to return other frames."""


def peculiarity(index: VideoIndex) -> str | None:
    """What about the pictures of a file neither torchcodec nor decord gets right, None if nothing."""
    if index.mirrored:
        return "it does not mirror pictures as the display matrix asks"
    if index.codec == "h264" and "444" in index.pixel_format:
        return "it decodes H.264 4:4:4 of old x264 wrongly where it does not start at the first frame"
    return None


class TorchCodecReader(BaseReader):
    """torchcodec in its exact mode; it conceals damaged pictures and hands them out without an error."""

    name = "torchcodec"
    package = "torchcodec"
    reports_damage = False

    def __init__(self, index: VideoIndex, *, num_threads: int) -> None:
        super().__init__(index, num_threads=num_threads)
        from torchcodec.decoders import VideoDecoder

        try:
            self._decoder = VideoDecoder(
                str(index.path),
                stream_index=index.stream,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                device="cpu",
            )
        except (RuntimeError, ValueError) as error:
            raise VideoError(f"{index.path}: torchcodec cannot open it: {error}") from error
        if len(self._decoder) != len(index) and not index.cut:
            count = len(self._decoder)
            raise VideoError(f"{index.path}: torchcodec counts {count} frames of {len(index)}; use reader='auto'")

    @staticmethod
    def refusal(index: VideoIndex) -> str | None:
        if index.packets is None or index.format not in SEEKABLE_FORMATS:
            return f"it does not find frames exactly in a file of format {index.format!r}"
        return peculiarity(index)

    def _read(self, indices: Sequence[int]) -> np.ndarray:
        try:
            batch = self._decoder.get_frames_at(list(indices))
        except (RuntimeError, IndexError) as error:
            if len(indices) > 1:  # to name the frame
                return np.concatenate([self._read([index]) for index in indices])
            raise VideoError(f"{self.path}: frame {indices[0]} cannot be decoded: {error}") from error
        expected = self.index.pts[list(indices)] * float(self.index.time_base)
        off = np.flatnonzero(np.abs(batch.pts_seconds.numpy() - expected) > float(self.index.time_base) / 2)
        if len(off):
            raise VideoError(
                f"{self.path}: frame {indices[off[0]]} cannot be decoded: torchcodec returns the one of "
                f"{batch.pts_seconds[off[0]]:.6f} s instead of {expected[off[0]]:.6f} s; use reader='pyav'"
            )
        return batch.data.numpy()

    def _release(self) -> None:
        del self._decoder
