"""How a reading process behaves when the run is interrupted: the training process decides, not the signal."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def start_worker(worker: int) -> None:
    """Prepare a reading process: it goes on reading until its parent ends it or is gone.

    A Ctrl-C and a scheduler's SIGTERM reach every process of the run. A reading process that died of it would take the
    training process with it, which is about to save. A SIGTERM from the training process itself ends it at once, and
    so does its death: torch does not tell workers from a fork server, Python 3.14's default, that it was killed.

    Args:
        worker: Number of the process, unused.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    told_by_signal = hasattr(signal, "sigwaitinfo")  # elsewhere the sender is not known, and SIGTERM ends the process
    if told_by_signal:  # before any thread starts: one that does not block the signal would take and lose it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for threads that libraries started before
        threading.Thread(target=_end_when_told_by_parent, daemon=True).start()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_when_told_by_parent() -> None:
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent.pid if parent else os.getppid()):
        pass
    os._exit(0)


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
