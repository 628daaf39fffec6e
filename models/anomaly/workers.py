"""Child processes that fit detectors and read files, so that scoring never waits for either.

A replica scores in its own process; what may take minutes of the interpreter, gigabytes of memory
or the process with it happens in a child, `worker.py`.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from models.anomaly import worker
from models.anomaly.shared_bytes import SharedTable, receive_table, send_buffer
from models.errors import (
    DeadlineExceededError,
    FitCancelledError,
    FitCrashedError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
)
from models.types.anomaly import FitRequest, NumericTable, Table, UploadedTable

SCRIPT = Path(worker.__file__)
OUT_OF_MEMORY = "out of memory"
LOOK_S = 0.05
"""How often a caller looks whether it has been cancelled."""
IDLE_S = 60.0
"""For how long a child that has nothing to do is kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fitted:
    """A detector as it is stored."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]
    info: Any
    seconds: float


class Worker(Protocol):
    """Where fits and uploads are worked on; blocking, thread-safe. `cancelled` ends a fit early."""

    def fit(self, request: FitRequest, cancelled: threading.Event) -> Fitted:
        """Raises ModelError, FitCancelledError, FitCrashedError or DeadlineExceededError."""

    def read(self, upload: UploadedTable) -> Table | NumericTable:
        """Raises InvalidInputError."""

    def close(self) -> None: ...


def fit_here(request: FitRequest) -> Fitted:
    from models.anomaly.fitted import FittedDetector

    table = request.table
    if isinstance(table, UploadedTable):
        table = read_here(table)
    start = time.perf_counter()
    detector = FittedDetector.fit(dataclasses.replace(request, table=table))
    seconds = time.perf_counter() - start
    return Fitted(detector.manifest(), detector.files(), detector.info, seconds)


def read_here(upload: UploadedTable) -> Table | NumericTable:
    from models.anomaly.uploads import read_table

    return read_table(upload)


def tasks() -> Mapping[str, Callable[[Any], Any]]:
    """What a child can be asked to do."""
    return {"fit": fit_here, "read": read_here}


class InProcess:
    """Works in the caller's own thread; nothing is bounded."""

    def fit(self, request: FitRequest, cancelled: threading.Event) -> Fitted:
        fitted = fit_here(request)
        if cancelled.is_set():
            raise FitCancelledError("The fit has been cancelled.")
        return fitted

    def read(self, upload: UploadedTable) -> Table | NumericTable:
        return read_here(upload)

    def close(self) -> None:
        return


class WorkerProcesses:
    """A child process for each call at a time; the last one that was used waits for the next call.

    `memory_bytes` and `fit_s` bound a fit; `read_s` bounds reading a file.
    """

    def __init__(
        self, *, memory_bytes: int, fit_s: float, read_s: float = 60.0, n_threads: int = 1
    ) -> None:
        self._memory_bytes = memory_bytes
        self._fit_s = fit_s
        self._read_s = read_s
        self._n_threads = n_threads
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._closed = False

    def fit(self, request: FitRequest, cancelled: threading.Event) -> Fitted:
        return cast("Fitted", self._run("fit", request, cancelled, self._fit_s))

    def read(self, upload: UploadedTable) -> Table | NumericTable:
        never = threading.Event()
        return cast("Table | NumericTable", self._run("read", upload, never, self._read_s))

    def close(self) -> None:
        """End all children, also those at work, whose callers get a FitCrashedError."""
        with self._lock:
            self._closed = True
            children = [*self._idle, *self._busy]
            self._idle.clear()
        for child in children:
            child.kill()

    @property
    def pids(self) -> list[int]:
        """Of the children at work."""
        with self._lock:
            return [child.pid for child in self._busy]

    def _run(self, task: str, argument: Any, cancelled: threading.Event, limit_s: float) -> Any:
        child = self._take()
        try:
            result = child.ask(task, argument, cancelled, limit_s)
            exhausted = isinstance(result, str) and result == OUT_OF_MEMORY
            if exhausted:
                child.kill()  # what is left of its memory does not do for the next task
        finally:
            self._give_back(child)
        if exhausted:
            raise InvalidInputError(
                f"The data takes more than {self._memory_bytes >> 20} MiB of memory.", "data"
            )
        if isinstance(result, ModelError):
            raise result
        return result

    def _take(self) -> _Child:
        with self._lock:
            if self._closed:
                raise FitCrashedError("The detectors have been closed.")
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    self._busy.add(child)
                    return child
        child = _Child(self._memory_bytes, self._n_threads)
        with self._lock:
            self._busy.add(child)
        return child

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            self._busy.discard(child)
            keep = child.alive and not self._closed and not self._idle
            if keep:
                self._idle.append(child)
        if keep:
            timer = threading.Timer(IDLE_S, self._expire, (child, child.uses))
            timer.daemon = True
            timer.start()
        else:
            child.kill()

    def _expire(self, child: _Child, uses: int) -> None:
        with self._lock:
            if child not in self._idle or child.uses != uses:
                return
            self._idle.remove(child)
        child.kill()


class _Child:
    """One process, used by one thread at a time; `kill` may come from any."""

    def __init__(self, memory_bytes: int, n_threads: int) -> None:
        self.uses = 0
        self._killed = False
        self._connection, theirs = multiprocessing.Pipe(duplex=True)
        command = [sys.executable, "-I", str(SCRIPT), str(theirs.fileno())]
        command += [str(memory_bytes), str(n_threads), json.dumps(sys.path)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                command,
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            raise ModelLoadError("The process that fits could not be started.") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    def ask(self, task: str, argument: Any, cancelled: threading.Event, limit_s: float) -> Any:
        self.uses += 1
        deadline = time.monotonic() + limit_s
        try:
            self._send(task, argument)
            while not self._connection.poll(LOOK_S):
                if cancelled.is_set():
                    self.kill()
                    raise FitCancelledError("The fit has been cancelled.")
                if time.monotonic() > deadline:
                    self.kill()
                    raise DeadlineExceededError(f"Not done within {limit_s:g} s.")
            result = self._connection.recv()
            if isinstance(result, SharedTable):
                return receive_table(self._connection, result)
            return result
        except (EOFError, OSError) as error:
            self.kill()
            raise FitCrashedError(
                "The process that worked on these rows has died: they may take too much memory."
            ) from error

    def _send(self, task: str, argument: Any) -> None:
        if isinstance(argument, UploadedTable):
            self._connection.send((task, dataclasses.replace(argument, data=b"")))
            send_buffer(self._connection, argument.data)
        else:
            self._connection.send((task, argument))

    def kill(self) -> None:
        """Bury it, too."""
        self._killed = True
        self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()
