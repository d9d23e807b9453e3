"""Values from files of strangers, written so that they fit into a message."""

from __future__ import annotations


def shown(value: object, limit: int = 60) -> str:
    """Write a value as Python does, shortened to `limit` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        text = f"an {type(value).__name__} that is too long to write"
    return text if len(text) <= limit else f"{text[:limit]}..."
