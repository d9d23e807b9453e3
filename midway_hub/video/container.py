"""What a video file holds, learnt once at opening with one pass over its packets and a look at its first frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from midway_hub.video.errors import VideoError
from midway_hub.video.index import NO_TIME, Packets, VideoIndex, ticks
from midway_hub.video.integrity import check_container
from midway_hub.video.scan import Scan, why
from midway_hub.video.still_reader import index_still

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger("midway_hub")

_MAX_REORDER = 64
_PICTURES = ("_pipe", "image2")  # how FFmpeg's names of the formats of pictures end
_PROFILED = ("apng", "png")


def index_video(path: Path, stream: int | None = None) -> VideoIndex:
    """List the frames of a video.

    Args:
        path: The file.
        stream: Index of a video stream within the container; None for the one that FFmpeg picks.

    Returns:
        The index, with at least one frame.

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: It cannot be opened, has no such stream, or no frame of it can be decoded.
    """
    _check_file(path)
    with open_container(path) as container:
        video = _pick_stream(container, stream, path)
        if container.format.name.endswith(_PICTURES):
            still = index_still(path, video, packets=_count_packets(path, video.index))
            if still is not None:
                return still
        missing, broken_at = check_container(path)
        scan = Scan(container, video, broken_at)
        if scan.first_frame is None:
            reason = scan.head_error or "it holds no complete frame"
            raise VideoError(f"{path}: no frame of video stream {video.index} can be decoded: {reason}")
        packets, times = _frame_times(path, container, video, scan)
        cut = _why_cut(video, scan, missing)
        if cut and packets is not None:
            times = times[: _contiguous(times, packets)]
        return VideoIndex(
            path=path,
            stream=video.index,
            is_default_stream=video.index == _best_stream(container).index,
            format=container.format.name,
            codec=video.codec_context.codec.canonical_name,
            pixel_format=scan.first_frame.format.name,
            **_geometry(scan.first_frame, video.codec_context.codec.canonical_name),
            time_base=Fraction(video.time_base.numerator, video.time_base.denominator),  # PyAV 19: a class of its own
            pts=times,
            end=int(times[-1]) + _last_duration(times, video, scan),
            packets=packets,
            only_idr=scan.only_idr,
            announced=video.frames - sum(row[4] for row in scan.rows) if video.frames else None,
            cut=cut,
        )


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a file with PyAV, which may read that file and nothing else.

    Raises:
        VideoError: It cannot be opened.
    """
    import av

    try:
        # A playlist could name other files and addresses.
        options = {"protocol_whitelist": "file"}
        container = av.open(str(path.absolute()), container_options=options, **_lenient_metadata(av.__version__))
    except (av.FFmpegError, OSError) as error:
        missing, _ = check_container(path)
        hint = f"; the file is cut off, {missing} bytes of it are missing" if missing else ""
        raise VideoError(f"{path}: cannot be opened as a video: {why(error)}{hint}") from error
    with container:
        yield container


def _lenient_metadata(version: str) -> dict[str, str]:
    """What makes PyAV accept metadata that is not UTF-8; from 19 on it always does."""
    return {"metadata_errors": "replace"} if int(version.split(".")[0]) < 19 else {}


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"there is no video file {path}")
    if not path.is_file():
        raise VideoError(f"{path}: is a directory or device, not a video file")
    if not path.stat().st_size:
        raise VideoError(f"{path}: is empty (0 bytes), not a video")


def _video_streams(container: InputContainer) -> list[VideoStream]:
    from av.stream import Disposition

    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _best_stream(container: InputContainer) -> VideoStream:
    best = container.streams.best("video")
    streams = _video_streams(container)
    return next((s for s in streams if best is not None and s.index == best.index), streams[0])


def _pick_stream(container: InputContainer, stream: int | None, path: Path) -> VideoStream:
    if container.format.name == "tty":
        raise VideoError(
            f"{path}: cannot be opened as a video: it is a text file, which FFmpeg would draw as a terminal"
        )
    streams = _video_streams(container)
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"{path}: has no video stream (it holds: {kinds})")
    if stream is None:
        video = _best_stream(container)
    else:
        video = next((s for s in streams if s.index == stream), None)
        if video is None:
            known = ", ".join(f"{s.index} ({s.width}x{s.height})" for s in streams)
            raise VideoError(f"{path}: stream {stream} is no video stream; the video streams are {known}")
    if video.codec_context is None:
        raise VideoError(f"{path}: video stream {video.index} is in a codec that this build of PyAV cannot decode")
    return video


def _frame_times(
    path: Path, container: InputContainer, video: VideoStream, scan: Scan
) -> tuple[Packets | None, np.ndarray]:
    """The times of the frames that decoding will put out, and the packets if these tell them apart."""
    packets = scan.packets()
    # AVI stores no presentation times; FFmpeg makes them up in decode order.
    made_up = container.format.name == "avi" and video.codec_context.has_b_frames
    times, decoded = np.sort(packets.pts[~packets.discard]), np.unique(packets.pts)
    if not made_up and _in_display_order(packets, times):
        if scan.head_error is None:
            # Leading pictures of the first key frame refer to what is not there, and do not come out.
            first_key = packets.pts[np.argmax(packets.key)]
            lost = decoded[(decoded < max(first_key, scan.head[0])) & ~np.isin(decoded, scan.head)]
            times, decoded = np.setdiff1d(times, lost), np.setdiff1d(decoded, lost)
            if decoded[: len(scan.head)].tolist() == scan.head:
                return packets, times
        elif np.isin(scan.head, decoded).all():
            return packets, times
    logger.info("%s: its packets do not tell the times of its frames; decoding it once to count them", path)
    shown = _decode_times(path, video.index)
    increasing = bool(shown) and shown[0] != NO_TIME and (np.diff(shown) > 0).all()
    if not increasing:
        return None, np.arange(len(shown), dtype=np.int64) * _ticks_per_frame(video)
    if made_up or not np.isin(shown, times).all():
        return None, np.array(shown, np.int64)
    return packets, np.array(shown, np.int64)


def _in_display_order(packets: Packets, times: np.ndarray) -> bool:
    """The packets' times are all there, all different, and reordered no further than a decoder can."""
    if not len(times) or times[0] == NO_TIME or (np.diff(times) <= 0).any():
        return False
    rank = np.searchsorted(times, packets.pts[~packets.discard])
    return bool(np.abs(rank - np.arange(len(rank))).max() <= _MAX_REORDER)


def _decode_times(path: Path, stream: int) -> list[int]:
    import av

    times: list[int] = []
    with open_container(path) as container:
        video = container.streams[stream]
        video.codec_context.thread_type = "AUTO"
        packets = container.demux(video)
        while True:
            try:
                times.extend(ticks(frame.pts) for frame in next(packets).decode())
            except StopIteration:
                return times
            except av.FFmpegError:
                continue


def _why_cut(video: VideoStream, scan: Scan, missing: int) -> str | None:
    if not missing and not scan.tail_error:
        return None
    if video.frames and len(scan.rows) >= video.frames:
        return None  # what is missing is not video
    reason = f"the file is cut off, {missing} bytes of it are missing" if missing else scan.tail_error
    return f"{reason} (its container announces {video.frames} frames)" if video.frames else reason


def _contiguous(times: np.ndarray, packets: Packets) -> int:
    """How many frames at the start of a cut-off file follow each other without a missing one.

    A missing packet is shown after the last one's decode time. Behind that time, a frame surely follows the one before
    when none of this file's frames is short enough to fit between them.
    """
    gaps = np.diff(times)
    if not len(gaps):
        return len(times)
    follows = (times[1:] <= packets.dts.max()) | (gaps < 2 * gaps.min())
    return len(times) if follows.all() else int(np.argmin(follows)) + 1


def _ticks_per_frame(video: VideoStream) -> int:
    rate = video.average_rate or video.guessed_rate or 25
    return max(1, round(1 / (rate * video.time_base)))


def _last_duration(times: np.ndarray, video: VideoStream, scan: Scan) -> int:
    known = scan.durations.get(int(times[-1]))
    if known:
        return known
    return int(np.median(np.diff(times))) if len(times) > 1 else _ticks_per_frame(video)


def _count_packets(path: Path, stream: int) -> int:
    with open_container(path) as container:
        return sum(bool(packet.size) for packet in container.demux(container.streams[stream]))


def _geometry(frame: VideoFrame, codec: str) -> dict[str, Any]:
    """Displayed size and orientation, from the display matrix (16.16 fixed point, row by row)."""
    matrix = (1, 0, 0, 1)
    if found := _display_matrix(frame, codec):
        a, b, c, d = found
        straight = abs(a) + abs(d) >= abs(b) + abs(c)
        matrix = (_sign(a), 0, 0, _sign(d)) if straight else (0, _sign(b), _sign(c), 0)
    width, height = (frame.width, frame.height) if matrix[0] else (frame.height, frame.width)
    return {"width": width, "height": height, "matrix": matrix}


def _display_matrix(frame: VideoFrame, codec: str) -> tuple[int, int, int, int] | None:
    """The upper left of a frame's display matrix, None where it has none.

    PyAV lists all that goes with a frame or nothing. Of a colour profile that has a name it frees what is FFmpeg's, so
    profiles are taken off first; of what its FFmpeg knows and it does not, such as EXIF in Motion JPEG, it makes an
    error, so that only the rotation is left to ask for.
    """
    shown = _without_profile(frame) if codec in _PROFILED else frame
    try:
        stored = shown.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return {0: None, 90: (0, -1, 1, 0), -90: (0, 1, -1, 0)}.get(frame.rotation, (-1, 0, 0, -1))
    if stored is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(stored), np.int32)[:5].tolist()
    return a, b, c, d


def _without_profile(frame: VideoFrame) -> VideoFrame:
    import av.filter

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(frame, time_base=Fraction(1)),
        graph.add("sidedata", "mode=delete:type=ICC_PROFILE"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
