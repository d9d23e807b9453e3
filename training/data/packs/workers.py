"""Spreading tasks over processes of which any may die at any time, this one included."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from midway_hub.training.data.packs.errors import PackError

Task = TypeVar("Task")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(work: Callable[[Task], Iterator[Result]], tasks: Sequence[Task], processes: int) -> Generator[Result]:
    """Do tasks in several processes, in this one if `processes` is 1; yields what they yield, as it comes.

    When the iterator is closed, or a task fails, all processes are ended. When this process dies, they end themselves
    at their next result.

    Args:
        work: A function of a module, so that other processes find it.
        tasks: What to call it with, one after the other.
        processes: How many at a time.

    Raises:
        PackError: A task raised it, or failed unexpectedly, or its process died.
    """
    if min(processes, len(tasks)) <= 1:
        for task in tasks:
            yield from work(task)
        return
    waiting = iter(tasks)
    workers: dict[Any, _Worker] = {}
    try:
        for task in itertools.islice(waiting, processes):
            worker = _start(work)
            workers[worker.connection] = worker
            worker.give(task)
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]
                kind, value = worker.receive()
                if kind == "error":
                    raise value
                if kind == "result":
                    yield value
                elif not worker.give(next(waiting, None)):
                    del workers[connection]
                    worker.end()
    finally:
        for worker in workers.values():
            worker.process.terminate()
            worker.end()


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Any = None

    def give(self, task: Any) -> bool:
        """Send the next task, None for the end; returns whether there was one."""
        self.task = task
        self.connection.send(task)
        return task is not None

    def receive(self) -> tuple[str, Any]:
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            raise PackError(
                f"the process that worked on {self.task} died with exit code {code} (-9: killed, often for want of "
                f"memory; -11: the video decoder crashed). What is finished is safe; run again to go on, with fewer "
                f"processes if memory is short"
            ) from None

    def end(self) -> None:
        self.process.join()
        self.connection.close()


def _start(work: Callable[[Any], Iterator[Any]]) -> _Worker:
    context = get_context("spawn")  # a forked decoder may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process ends the connection
    return _Worker(process, ours)


def _serve(work: Callable[[Any], Iterator[Any]], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    try:
        while (task := connection.recv()) is not None:
            try:
                for result in work(task):
                    connection.send(("result", result))
                connection.send(("done", None))
            except PackError as error:
                connection.send(("error", error))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:
                connection.send(("error", PackError(f"{task} failed unexpectedly:\n{traceback.format_exc()}")))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
