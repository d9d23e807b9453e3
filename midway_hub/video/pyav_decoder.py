"""Decoding a stream's packets with PyAV from an entry point on, and turning the pictures into RGB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from midway_hub.video.container import open_container
from midway_hub.video.errors import VideoError
from midway_hub.video.index import NO_TIME, VideoIndex, ticks
from midway_hub.video.scan import unhidden, why

if TYPE_CHECKING:
    from av.filter import Graph
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Without "explode" these decoders hide the damage that they notice. Those of H.264 and MPEG-4 mark it in the picture,
# and their "explode" also rejects sound pictures behind the key frame of an open GOP.
_STRICT_CODECS = {"hevc", "mjpeg", "ffv1"}
# Only the first packet of these names the encoder, whose bugs FFmpeg's decoder then works around (x264 4:4:4, DivX).
_SIGNED_CODECS = {"h264", "mpeg4"}


@dataclass(frozen=True)
class Step:
    """What came of feeding one packet to the decoder.

    Attributes:
        ordinal: The packet's place in decode order.
        leading: It is shown before the entry point, whose decoding it does not concern.
        pictures: (tick, picture) in display order; pictures lag behind packets.
        error: Why the decoder rejected the packet.
    """

    ordinal: int
    leading: bool
    pictures: list[tuple[int, VideoFrame]]
    error: str | None = None


class LostError(Exception):
    """After seeking, the container gave other packets than at opening; the decoder will not seek in it again."""


class Decoder:
    """An open container and decoder, positioned by packet.

    Args:
        index: The file's index.
        num_threads: Decoding threads, 0 for FFmpeg's choice.
    """

    def __init__(self, index: VideoIndex, num_threads: int) -> None:
        self._index = index
        self._num_threads = num_threads
        self._seekable = index.packets is not None
        self._primed = False
        self._opened = ExitStack()
        self._counted = 0
        self._container: Any = None
        self._stream: Any = None
        self._context: Any = None

    def close(self) -> None:
        self._container = self._stream = self._context = None
        self._opened.close()

    def decode(self, entry: int, stop: int | None = None) -> Iterator[Step]:
        """Decode the packets from an entry point up to `stop` in decode order, then what the decoder still holds."""
        packets = self._index.packets
        if packets is not None:
            stop = min(len(packets), len(packets) if stop is None else stop)
        if self._container is None:
            self._open()
        self._counted = 0
        ordinal = entry - 1
        for ordinal, packet in self._packets_from(entry, stop):
            yield self._feed(ordinal, packet, packets is not None and packets.pts[ordinal] < packets.pts[entry])
        yield self._feed(ordinal + 1, None, leading=False)

    def _feed(self, ordinal: int, packet: Packet | None, leading: bool) -> Step:
        import av

        if packet is not None and packet.is_discard and ticks(packet.pts) < self._index.pts[0]:
            packet = unhidden(packet)  # damage in it shows in the frames that refer to it
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            return Step(ordinal, leading, [], why(error))
        return Step(ordinal, leading, [self._timed(frame) for frame in frames])

    def _timed(self, frame: VideoFrame) -> tuple[int, VideoFrame]:
        if self._index.packets is not None:
            return (ticks(frame.pts)), frame
        number = self._counted
        self._counted += 1
        return int(self._index.pts[number]) if number < len(self._index) else self._index.end, frame

    def _packets_from(self, entry: int, stop: int | None) -> Iterator[tuple[int, Packet]]:
        """(ordinal, packet) from an entry point on."""
        if entry and self._seekable and not self._primed:
            self._prime()
        landed = self._seek(entry) if self._seekable else None
        if landed is None:
            self._open()
            landed = islice(self._demux(), entry, None)
        for ordinal, packet in enumerate(islice(landed, None if stop is None else stop - entry), entry):
            if not self._is_expected(ordinal, packet):
                if not self._seekable:
                    raise VideoError(f"{self._index.path}: it has changed since it was opened; open it again")
                self._seekable = False
                raise LostError
            yield ordinal, packet

    def _is_expected(self, ordinal: int, packet: Packet) -> bool:
        expected = self._index.packets
        return expected is None or (expected.pts[ordinal], expected.size[ordinal]) == (ticks(packet.pts), packet.size)

    def _prime(self) -> None:
        self._primed = True
        if self._index.codec in _SIGNED_CODECS:
            self._feed(0, next(self._demux(), None), leading=False)

    def _seek(self, entry: int) -> Iterator[Packet] | None:
        """The packets from an entry point on, None where seeking does not lead there."""
        import av

        assert self._index.packets is not None
        pts, dts = int(self._index.packets.pts[entry]), int(self._index.packets.dts[entry])
        # Formats differ in which of the two times their seeking goes by.
        for time in (t for t in (pts, dts) if t != NO_TIME):
            try:
                self._container.seek(time, stream=self._stream)
            except av.FFmpegError:
                continue
            packets = self._demux()
            for packet in packets:
                if self._is_expected(entry, packet):
                    return chain([packet], packets)
                if ticks(packet.dts) > dts:
                    break
        return None

    def _demux(self) -> Iterator[Packet]:
        import av

        try:
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)
        except av.FFmpegError as error:
            raise VideoError(f"{self._index.path}: reading the file fails: {why(error)}") from error

    def _open(self) -> None:
        self._opened.close()
        self._primed = False
        self._container = self._opened.enter_context(open_container(self._index.path))
        self._stream = self._container.streams[self._index.stream]
        self._context = self._stream.codec_context
        self._context.thread_count = self._num_threads
        if self._num_threads != 1:
            self._context.thread_type = "AUTO"
        if self._index.codec in _STRICT_CODECS:
            self._context.options = {"err_detect": "explode+crccheck"}


class RGBConverter:
    """Pictures as displayed, in RGB, by the filter that the ffmpeg command uses.

    Args:
        index: The file's index.
    """

    def __init__(self, index: VideoIndex) -> None:
        self._index = index
        self._graphs: dict[tuple, Graph] = {}

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """The picture as (height, width, 3) uint8, as displayed."""
        graph = self._graph(frame)
        graph.push(frame)
        picture = graph.pull().to_ndarray()
        a, b, c, d = self._index.matrix
        return picture[::d, ::a] if a else picture.swapaxes(0, 1)[::b, ::c]

    def _graph(self, frame: VideoFrame) -> Graph:
        import av.filter

        key = (frame.width, frame.height, frame.format.name)
        if key not in self._graphs:
            graph = av.filter.Graph()
            width, height = self._index.width, self._index.height
            stored = f"{width}:{height}" if self._index.matrix[0] else f"{height}:{width}"
            graph.link_nodes(
                graph.add_buffer(frame, time_base=self._index.time_base),
                graph.add("scale", stored),
                graph.add("format", "rgb24"),
                graph.add("buffersink"),
            ).configure()
            self._graphs = {key: graph}
        return self._graphs[key]
