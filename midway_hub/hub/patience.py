"""How long a load waits for a Hub that asks to wait; huggingface_hub itself waits for as long as it is told."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from huggingface_hub import get_session
from huggingface_hub.utils import hf_raise_for_status

PATIENCE = 30.0
"""Seconds that all waits of one download may take together."""

_left: ContextVar[float | None] = ContextVar("seconds left to wait", default=None)
_RATE_LIMIT = re.compile(r"\br=0\b.*\bt=(\d+)")


@contextlib.contextmanager
def limited_patience(seconds: float = PATIENCE) -> Iterator[None]:
    """Raise the Hub's answer as an error where it asks to wait for longer than this, rather than wait.

    Calls of huggingface_hub outside of the block, and in other threads, are not affected.

    Args:
        seconds: What all waits inside the block may take together.

    Raises:
        HfHubHTTPError: The answer that asked to wait; `asked_to_wait` reads for how long.
    """
    hooks = get_session().event_hooks["response"]
    if _give_up not in hooks:
        hooks.append(_give_up)
    before = _left.set(seconds)
    try:
        yield
    finally:
        _left.reset(before)


def asked_to_wait(response: Any) -> int | None:
    """Seconds that an answer of the Hub asks to wait, by its Retry-After or its rate limit; None if it does not."""
    if response.status_code not in (429, 503):
        return None
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return int(text)
    limit = _RATE_LIMIT.search(response.headers.get("ratelimit", ""))
    return int(limit[1]) if limit else None


def _give_up(response: Any) -> None:
    left, wait = _left.get(), asked_to_wait(response)
    if left is None or wait is None:
        return
    _left.set(left - wait - 1)  # huggingface_hub adds a second
    if wait + 1 > left:
        response.read()
        hf_raise_for_status(response)
