"""What a file is by its first bytes, whatever its name or a server says."""

from __future__ import annotations

from typing import NamedTuple

HEAD_BYTES = 512
"""As many bytes as are enough to tell."""


class Signature(NamedTuple):
    """A kind of file.

    Attributes:
        kind: Its content type, such as `image/jpeg`.
        suffix: Its usual ending.
    """

    kind: str
    suffix: str


JPEG, PNG = Signature("image/jpeg", ".jpg"), Signature("image/png", ".png")
BMP, WEBP, TIFF = Signature("image/bmp", ".bmp"), Signature("image/webp", ".webp"), Signature("image/tiff", ".tif")
GREY, COLOURS = Signature("image/x-portable-graymap", ".pgm"), Signature("image/x-portable-pixmap", ".ppm")
GIF, AVIF, HEIF = Signature("image/gif", ".gif"), Signature("image/avif", ".avif"), Signature("image/heif", ".heic")
MP4, QUICKTIME = Signature("video/mp4", ".mp4"), Signature("video/quicktime", ".mov")
MATROSKA, WEBM = Signature("video/x-matroska", ".mkv"), Signature("video/webm", ".webm")
AVI, FLV = Signature("video/x-msvideo", ".avi"), Signature("video/x-flv", ".flv")
ASF, OGG = Signature("video/x-ms-wmv", ".wmv"), Signature("video/ogg", ".ogv")
MPEG, TRANSPORT = Signature("video/mpeg", ".mpg"), Signature("video/mp2t", ".ts")

_STARTS = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF8": GIF,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"FLV\x01": FLV,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ASF,
    b"OggS": OGG,
    b"\0\0\1\xba": MPEG,
    b"\0\0\1\xb3": MPEG,
}
_PORTABLE = {b"P2": GREY, b"P5": GREY, b"P3": COLOURS, b"P6": COLOURS}
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_BRANDS = {b"qt  ": QUICKTIME, b"avif": AVIF, b"avis": AVIF} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), HEIF
)
_PACKET, _SYNC = 188, 0x47


def signature_of(head: bytes) -> Signature | None:
    """Tell a picture or a video by its first bytes; None for anything else.

    Args:
        head: At least `HEAD_BYTES` bytes, or the whole file.
    """
    for start, found in _STARTS.items():
        if head.startswith(start):
            return found
    if head[:2] in _PORTABLE and head[2:3].isspace():
        return _PORTABLE[head[:2]]
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two reserved numbers
        return BMP
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"AVI ": AVI}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], MP4)
    if head[4:8] in _ATOMS:
        return QUICKTIME
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return WEBM if b"webm" in head[:64] else MATROSKA
    for lead in (0, 4):  # Blu-ray discs and cameras write four bytes before each packet
        places = range(lead, len(head), _PACKET + lead)
        if len(places) > 1 and all(head[place] == _SYNC for place in places):
            return TRANSPORT
    return None
