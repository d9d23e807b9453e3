"""torch's forward-mode derivative without torch's warning about its own code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def forward_mode() -> Iterator[None]:
    """Keep quiet that torch compiles parts of `torch.func.jvp` in a way that it calls deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        yield
