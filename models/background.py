"""Computing that steps aside for whoever needs the CPUs more."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LOWEST = 19
TASKS = Path("/proc/self/task")


def in_background(work: Callable[[], T], niceness: int) -> T:
    """The result of `work`, whose threads compute with a niceness so much higher afterwards.

    `work` itself runs nearly as fast as everything else, on a thread of its own: niceness is
    inherited, so one degree marks what it has started. Other threads of the process, which serve
    and answer, stay as they are. Only Linux has priorities of threads; elsewhere none changes.
    """
    if not niceness or not TASKS.is_dir():
        return work()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    mark = min(LOWEST, before + 1)
    result = _on_thread(work, mark)
    if mark > before:
        _lower(mark, min(LOWEST, before + niceness))
    return result


def _on_thread(work: Callable[[], T], niceness: int) -> T:
    future: Future[T] = Future()

    def run() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
            future.set_result(work())
        except BaseException as error:  # the outermost frame of a thread
            future.set_exception(error)

    thread = threading.Thread(target=run, name="load", daemon=True)
    thread.start()
    thread.join()
    return future.result()


def _lower(mark: int, niceness: int) -> None:
    for task in TASKS.iterdir():
        with suppress(ProcessLookupError):  # it ended meanwhile
            if os.getpriority(os.PRIO_PROCESS, int(task.name)) == mark:
                os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
