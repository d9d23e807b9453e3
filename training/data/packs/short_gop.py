"""The form h264: one MP4 per video, without B-frames and with a key frame every few frames, so that any is near one."""

from __future__ import annotations

import functools
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np

from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.layout import ROW, PackedVideo, PackFolder, StoredFile
from midway_hub.training.data.packs.settings import PackSettings

_TICK = Fraction(1, 90000)


class ShortGopWriter:
    """Writes each video into an MP4 of its own, `videos/NAME.mp4`, with the original's times."""

    def __init__(self, folder: PackFolder, shard: int, settings: PackSettings) -> None:
        self._folder, self._settings = folder, settings
        self._part = folder.parts / f"{shard:05d}.{os.getpid()}"
        self._part.mkdir()
        self._done: dict[str, str] = {}
        self._container: Any = None

    def begin(self, name: str, size: tuple[int, int], run: int) -> None:
        import av

        self._name, self._size, self._run = name, size, run
        self._path = self._part / f"{len(self._done)}.mp4"
        self._frames: list[tuple[int, float]] = []
        self._container = av.open(str(self._path), "w")
        self._stream = add_stream(self._container, size, self._settings)

    def add(self, picture: np.ndarray, number: int, seconds: float) -> int:
        import av

        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = round(seconds / _TICK), _TICK
        self._frames.append((number, seconds))
        return self._mux(frame)

    def end(self, first_row: int) -> tuple[PackedVideo, np.ndarray]:
        self._mux(None)
        self._container.close()
        self._container = None
        rows, extradata = _rows_of(self._path, self._frames, self._settings.gop)
        final = f"videos/{self._name}.mp4"
        self._done[final] = self._path.name
        span = (first_row, first_row + len(rows))
        return PackedVideo(self._name, final, span, self._run, *self._size, extradata), rows

    def discard(self) -> None:
        """Forget what was added since the last `end`."""
        self._abandon()
        (self._part / f"{len(self._done)}.mp4").unlink(missing_ok=True)

    def finish(self) -> dict[str, StoredFile]:
        return {name: self._folder.publish(self._part / part, name) for name, part in self._done.items()}

    def close(self) -> None:
        """Remove what is not finished."""
        self._abandon()
        shutil.rmtree(self._part, ignore_errors=True)

    def _abandon(self) -> None:
        if self._container is not None:
            with suppress(OSError):  # a full disk shows again
                self._container.close()
            self._container = None

    def _mux(self, frame: Any) -> int:
        packets = self._stream.encode(frame)
        self._container.mux(packets)
        return sum(packet.size for packet in packets)


def add_stream(container: Any, size: tuple[int, int], settings: PackSettings) -> Any:
    """Add an H.264 stream that is cheap to decode from any of its key frames."""
    options = {
        "crf": str(settings.crf),
        "preset": "veryfast",
        "tune": "fastdecode",
        "x264-params": f"keyint={settings.gop}:min-keyint={settings.gop}:scenecut=0:open-gop=0:bframes=0",
    }
    stream = container.add_stream("libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TICK
    stream.codec_context.thread_count = 1
    return stream


def _rows_of(path: Any, frames: list[tuple[int, float]], gop: int) -> tuple[np.ndarray, str]:
    """Where each frame's packet lies in a finished file, and the decoder's extradata."""
    import av

    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packets = [p for p in container.demux(video=0) if p.size]
        times = [p.pts * p.time_base for p in packets]
        keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
        if times != sorted(times) or len(packets) != len(frames) or keys != list(range(0, len(frames), gop)):
            raise PackError(
                f"x264 made {len(packets)} packets with key frames at {keys[:5]} of {len(frames)} frames, wanted one "
                f"every {gop}: this build of PyAV cannot make the form h264; use form=jpeg"
            )
        rows = [
            (number, seconds, packet.pos, packet.size, zlib.crc32(bytes(packet)))
            for (number, seconds), packet in zip(frames, packets, strict=True)
        ]
    return np.array(rows, ROW), extradata.hex()


def decode_gop(parts: Sequence[bytes], video: PackedVideo) -> np.ndarray:
    """Decode packets from a key frame on; returns the last one's picture, (H, W, 3) uint8 RGB.

    The packets go straight to the decoder: opening the MP4 would cost more than decoding some frames of it.
    """
    import av

    context, to_rgb = _decoder(video.extradata, threading.get_ident())
    context.flush_buffers()
    pictures = [frame for part in parts for frame in context.decode(av.Packet(part))]
    if len(pictures) < len(parts):
        pictures += context.decode(None)
    if len(pictures) != len(parts) or pictures[-1].is_corrupt:
        raise ValueError(f"{len(parts)} packets gave {len(pictures)} sound pictures")
    return to_rgb(pictures[-1]).to_ndarray()


@functools.lru_cache(maxsize=8)
def _decoder(extradata: str, thread: int) -> tuple[Any, Callable[[Any], Any]]:
    """Decoder and conversion to RGB for one thread; videos of one size that were packed alike share them."""
    from av import CodecContext, __version__
    from av.video.reformatter import VideoReformatter

    context = CodecContext.create("h264", "r")
    context.extradata = bytes.fromhex(extradata)
    context.thread_count = 1
    # From PyAV 17 on it would wake several threads for each small picture.
    alone = {"threads": 1} if int(__version__.split(".")[0]) >= 17 else {}
    return context, functools.partial(VideoReformatter().reformat, format="rgb24", **alone)
