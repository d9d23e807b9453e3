"""Whether a file is as long, and as well formed, as its container says: demuxers step over both faults in silence."""

from __future__ import annotations

import mmap
from pathlib import Path

_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip", b"styp")
_EBML_HEADER, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# SeekHead, Info, Tracks, Chapters, Cluster, Cues, Attachments, Tags; Void, CRC-32
_IN_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1043A770, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1254C367, 0xEC, 0xBF}
# Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock; Void, CRC-32
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF}
_LONGEST_HEAD = 12
_OPEN = 1 << 62


def check_container(path: Path) -> tuple[int, int | None]:
    """Look for missing and for malformed parts of an MP4/MOV, Matroska/WebM or AVI file.

    Args:
        path: A file that is not empty; of other formats nothing is known.

    Returns:
        The number of bytes that the container announces behind the end of the file, and the offset at which its
        structure breaks, None if it does not.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        broken = None
        if data[4:8] in _BOXES:
            end = _end_of_boxes(data)
        elif int.from_bytes(data[:4], "big") == _EBML_HEADER:
            end, broken = _walk_matroska(data)
        elif data[:4] == b"RIFF":
            end = 8 + int.from_bytes(data[4:8], "little")
        else:
            end = 0
        return max(0, end - len(data)), broken


def _end_of_boxes(data: mmap.mmap) -> int:
    """End of the last top-level box (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8 or not data[at + 4 : at + 8].isalnum():
            return len(data)  # the last box, which is open-ended, or bytes that someone appended
        at += length
    return at


def _walk_matroska(data: mmap.mmap) -> tuple[int, int | None]:
    """End of the segment, and the offset of an element that cannot stand there (RFC 8794, RFC 9559)."""
    header = _element(data, 0)
    segment = _element(data, header[2]) if header else None
    if segment is None or segment[0] != _SEGMENT:
        return 0, None
    _, at, end = segment
    announced, end = (0, len(data)) if end == _OPEN else (end, min(end, len(data)))
    cluster_end = 0
    while at + _LONGEST_HEAD <= end:
        element = _element(data, at)
        if element is None:
            return announced, at
        identifier, content, behind = element
        if identifier in _IN_SEGMENT:
            at = content if identifier == _CLUSTER else behind
            cluster_end = behind if identifier == _CLUSTER else cluster_end
        elif identifier in _IN_CLUSTER and behind <= cluster_end:
            at = behind
        else:
            return announced, at
    return announced, None


def _element(data: mmap.mmap, at: int) -> tuple[int, int, int] | None:
    """Identifier, start of the content and end of the EBML element at an offset; None where none can stand."""
    if at + _LONGEST_HEAD > len(data):
        return None
    width = 9 - data[at].bit_length()
    size_at = at + width
    if width > 4 or not data[size_at]:
        return None
    size_width = 9 - data[size_at].bit_length()
    content = size_at + size_width
    marker = 1 << (7 * size_width)
    size = int.from_bytes(data[size_at:content], "big") - marker
    is_open = size == marker - 1  # the size of a live recording is not known
    return int.from_bytes(data[at:size_at], "big"), content, _OPEN if is_open else content + size
