"""torch's forward-mode derivative, one thread at a time and without torch's warning about its own code."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ALONE = threading.RLock()


@contextmanager
def forward_mode() -> Iterator[None]:
    """Have `torch.func.jvp` to oneself, and keep quiet that torch compiles parts of it in a way it calls deprecated.

    The level of differentiation that torch counts, the attention kernels that it may take and the filters of warnings
    are those of the whole process: of two threads, the one that is done first would end the other's.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        yield
