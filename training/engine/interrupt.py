"""Signals that ask a run to stop: it finishes the step, saves, and exits with a code that a scheduler requeues on.

Exit code 75 (`EX_TEMPFAIL`, "try again") means interrupted and saved. In a Slurm batch script:

    #SBATCH --signal=USR1@180
    srun python -m midway_hub.training pretrain ... || { [ $? -eq 75 ] && scontrol requeue $SLURM_JOB_ID; }

torchrun turns every failure of a worker into exit code 1; `state: interrupted` in `run.json` tells the two apart.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_log = logging.getLogger("midway_hub")


class Interrupt:
    """Context in which the first signal is noted in `requested` and the second one ends the process at once."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loader worker inherits this handler; its process ends it
            return
        name = signal.Signals(number).name
        if self.requested:
            _log.error("%s again: ending now, without saving", name)
            os._exit(128 + number)
        self.requested = name
        _log.warning("%s: finishing this step, saving, then stopping; once more ends at once", name)
