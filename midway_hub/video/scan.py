"""One pass over the packets of a stream, with a look at its first pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from midway_hub.video.index import Packets, ticks

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_HEAD_FRAMES = 3
_HEAD_PACKETS = 100


class Scan:
    """The packets of a stream up to where its container breaks.

    Args:
        container: An open container, which is read to its end.
        video: Its stream.
        broken_at: Offset in bytes at which the container is damaged, None if it is not.

    Attributes:
        rows: (pts, dts, size, key, discard, corrupt) of every packet, in decode order.
        durations: Duration in ticks by presentation time, 0 where it is not known.
        only_idr: Every key frame resets the decoder (H.264; True for other codecs).
        head: Presentation times of the first pictures that come out, hidden ones included.
        first_frame: The first of them.
        head_error: Why a packet up to there was rejected.
        tail_error: Why reading stops before the end.
    """

    def __init__(self, container: InputContainer, video: VideoStream, broken_at: int | None) -> None:
        self.rows: list[tuple[int, int, int, bool, bool, bool]] = []
        self.durations: dict[int, int] = {}
        self.only_idr = True
        self.head: list[int] = []
        self.first_frame: VideoFrame | None = None
        self.head_error: str | None = None
        self.tail_error: str | None = None
        self._run(container, video, broken_at)

    def packets(self) -> Packets:
        """The rows as columns."""
        pts, dts, size, key, discard, _ = (np.array(column) for column in zip(*self.rows, strict=True))
        return Packets(pts, dts, size, key, discard)

    def _run(self, container: InputContainer, video: VideoStream, broken_at: int | None) -> None:
        import av

        context = video.codec_context
        context.thread_count = 1
        h264 = context.codec.canonical_name == "h264"
        try:
            for packet in container.demux(video):
                if not packet.size:
                    continue
                if broken_at is not None and (packet.pos or 0) >= broken_at:
                    self.tail_error = f"the container is damaged at byte {broken_at}"
                    break
                self._note(packet)
                if h264 and packet.is_keyframe and not _has_idr(packet, context.extradata):
                    self.only_idr = False
                if len(self.head) < _HEAD_FRAMES and (len(self.rows) <= _HEAD_PACKETS or not self.head):
                    self._look(context, packet)
        except av.FFmpegError as error:
            self.tail_error = why(error)
        if len(self.head) < _HEAD_FRAMES:
            self._look(context, None)
        while self.rows and self.rows[-1][-1]:
            self.rows.pop()
            self.tail_error = self.tail_error or "it ends in the middle of a frame"

    def _note(self, packet: Packet) -> None:
        pts, dts = ticks(packet.pts), ticks(packet.dts)
        self.rows.append((pts, dts, packet.size, packet.is_keyframe, packet.is_discard, packet.is_corrupt))
        self.durations[pts] = packet.duration or 0

    def _look(self, context: Any, packet: Packet | None) -> None:
        import av

        try:
            frames = context.decode(unhidden(packet) if packet is not None and packet.is_discard else packet)
        except av.FFmpegError as error:
            self.head_error = self.head_error or why(error)
            return
        for frame in frames:
            self.first_frame = self.first_frame or frame
            self.head.append(ticks(frame.pts))


def unhidden(packet: Packet) -> Packet:
    """A packet that an edit list hides, as one whose picture the decoder puts out."""
    from av.packet import Packet

    copy = Packet(packet)
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    return copy


def why(error: Exception) -> str:
    """FFmpeg's reason for an error, without the path and number around it."""
    return getattr(error, "strerror", None) or str(error)


def _has_idr(packet: Packet, extradata: bytes | None) -> bool:
    """Whether an H.264 packet resets the decoder (NAL unit type 5; ITU-T H.264, 7.4.1)."""
    data = bytes(packet)
    if not extradata or extradata[0] != 1:  # byte stream with start codes
        return any(unit and unit[0] & 31 == 5 for unit in data.split(b"\0\0\1")[1:])
    prefix, at = (extradata[4] & 3) + 1, 0
    while at + prefix < len(data):
        if data[at + prefix] & 31 == 5:
            return True
        at += prefix + int.from_bytes(data[at : at + prefix], "big")
    return False
