"""Picture files made by hand, byte for byte, where Pillow would write them in another way."""

import struct
import zlib
from pathlib import Path

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
# Adam7: first row, first column, and the steps between rows and columns
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def write_png(path, samples, depth, colour=GREY, *, interlaced=False, chunks=()):
    """Write samples (H, W) or (H, W, C) as a PNG of `depth` bits per sample, other chunks before the pixels."""
    samples = np.asarray(samples)
    samples = samples.reshape(*samples.shape[:2], CHANNELS[colour])
    height, width = samples.shape[:2]
    parts = [samples[r::down, c::right] for r, c, down, right in PASSES] if interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row.ravel(), depth) for part in parts if part.shape[1] for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in body))
    return Path(path)


def write_pgm(path, values, largest, *, plain=False):
    """Write (H, W) as a PGM, or (H, W, 3) as a PPM, whose header names the largest value."""
    values = np.asarray(values)
    kind = (b"P2" if plain else b"P5") if values.ndim == 2 else (b"P3" if plain else b"P6")
    head = kind + b"\n# made by hand\n%d %d\n%d\n" % (values.shape[1], values.shape[0], largest)
    if plain:
        data = " ".join(map(str, values.ravel().tolist())).encode() + b"\n"
    else:
        data = values.astype(">u2" if largest > 255 else "u1").tobytes()
    Path(path).write_bytes(head + data)
    return Path(path)


def write_tiff(path, values, bits, *, photometric=1, compression=1):
    """Write grey (H, W) as an uncompressed little-endian TIFF of one strip; photometric 0 calls zero white."""
    values = np.asarray(values)
    rows = b"".join(_packed_little(row, bits) for row in values)
    height, width = values.shape
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(rows))),
    ]
    rows += bytes(len(rows) % 2)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    Path(path).write_bytes(b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + directory)
    return Path(path)


def _packed(samples, depth):
    if depth == 16:
        return samples.astype(">u2").tobytes()
    bits = (samples[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def _packed_little(samples, depth):
    return samples.astype("<u2").tobytes() if depth == 16 else _packed(samples, depth)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
