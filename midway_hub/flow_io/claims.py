"""Whether a file can hold what its header announces, found out before memory is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

DEFLATE = 1032
"""Bytes that one byte of zlib's stands for at most (https://zlib.net/zlib_tech.html); other packings reach less."""


def check_claim(shape: Sequence[int], item_bytes: int, held: int, *, packed: bool = False) -> int:
    """Refuse an array that is larger than the bytes that it is to be read from.

    Args:
        shape: Of the array that the header announces.
        item_bytes: Bytes of one number.
        held: Bytes that are there for it.
        packed: Whether they are compressed.

    Returns:
        Bytes of the array.

    Raises:
        ValueError: They cannot hold it, or a side is negative.
    """
    wanted = math.prod(shape) * item_bytes
    most = held * DEFLATE if packed else held
    if min(shape, default=0) < 0 or wanted > most:
        room = f"{held:,} compressed bytes are at most {most:,}" if packed else f"it has {held:,}"
        raise ValueError(
            f"its header announces an array of {'×'.join(map(str, shape))}, {wanted:,} bytes; {room}. "
            "It is damaged or cut short: copy it again"
        )
    return wanted
