"""Fits and uploads in child processes: the same results, and nothing worse than a typed error."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from models.anomaly.detectors import Detectors
from models.anomaly.workers import WorkerProcesses
from models.errors import (
    DeadlineExceededError,
    FitCancelledError,
    FitCrashedError,
    InvalidInputError,
)
from models.types.anomaly import AnomalyScores, FitRequest, NumericTable, UploadedTable
from tests.detector_samples import ROWS, TABLE, again, fit, score, table_of
from tests.processes import command_line, ended, pid_ended

PROJECT = Path(__file__).parents[2]
WAIT_S = 30.0
SLOW = FitRequest(
    "pump", "one_class_svm", NumericTable(np.random.default_rng(0).normal(size=(40_000, 8)))
)
"""Tens of seconds of work."""


@pytest.fixture
def worker() -> Iterator[WorkerProcesses]:
    processes = WorkerProcesses(memory_bytes=2 << 30, fit_s=300)
    yield processes
    processes.close()


@pytest.fixture
def library(tmp_path: Path, worker: WorkerProcesses) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=1, worker=worker, keep_versions=3)
    yield detectors
    detectors.close()


def child_of(worker: WorkerProcesses) -> int:
    """The process id of the child at work, once there is one."""
    deadline = time.monotonic() + WAIT_S
    while not worker.pids:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return worker.pids[0]


def in_background(library: Detectors, cancelled: threading.Event) -> tuple[threading.Thread, list]:
    """A slow fit in a thread, and what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            library.fit(SLOW, cancelled)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_child_fits_what_this_process_fits(library: Detectors, tmp_path: Path) -> None:
    here = Detectors(root=tmp_path / "here", n_threads=1)
    fit(here, backend="isolation_forest")
    info = fit(library, backend="isolation_forest")
    assert score(library).raw == score(here).raw == score(again(library)).raw
    assert info.fit_seconds > 0
    with pytest.raises(InvalidInputError) as caught:
        fit(library, table=table_of([[1.0]]))
    assert caught.value.param == "data"
    here.close()


def test_a_killed_child_is_an_error_and_keeps_the_version_before(
    library: Detectors, worker: WorkerProcesses
) -> None:
    fit(library)
    before = score(library)
    thread, raised = in_background(library, threading.Event())
    pid = child_of(worker)
    assert score(library) == before, "scoring does not wait for a fit"
    os.kill(pid, signal.SIGKILL)
    thread.join(WAIT_S)
    assert [type(error) for error in raised] == [FitCrashedError]
    assert score(library) == before
    assert fit(library).version == 2


def test_a_cancelled_fit_ends_its_child_and_keeps_the_version_before(
    library: Detectors, worker: WorkerProcesses
) -> None:
    fit(library)
    cancelled = threading.Event()
    thread, raised = in_background(library, cancelled)
    pid = child_of(worker)
    cancelled.set()
    thread.join(WAIT_S)
    assert [type(error) for error in raised] == [FitCancelledError]
    assert not psutil.pid_exists(pid)
    assert library.get("pump").version == 1


def test_a_fit_has_a_deadline(tmp_path: Path) -> None:
    worker = WorkerProcesses(memory_bytes=2 << 30, fit_s=0.05)
    with pytest.raises(DeadlineExceededError):
        worker.fit(SLOW, threading.Event())
    worker.close()


def workers() -> set[int]:
    """The processes of all workers of this process, other tests' too."""
    mine = psutil.Process().children()
    return {p.pid for p in mine if "anomaly/worker.py" in command_line(p) and not ended(p)}


def test_memory_is_bounded() -> None:
    others = workers()
    worker = WorkerProcesses(memory_bytes=450 << 20, fit_s=600)
    rows = NumericTable(np.zeros((400_000, 60)))
    with pytest.raises((InvalidInputError, FitCrashedError), match="memory"):
        worker.fit(FitRequest("pump", "ecod", rows), threading.Event())
    # none that has run out of memory is kept for the next task, which would pay for it
    assert workers() <= others
    small = UploadedTable("csv", b"a,b\n1,2\n", 10, 10)
    read = worker.read(small)
    assert isinstance(read, NumericTable)
    assert read.values.tolist() == [[1.0, 2.0]]
    worker.close()


def test_a_file_that_unfolds_to_more_than_there_is_memory_is_refused() -> None:
    worker = WorkerProcesses(memory_bytes=420 << 20, fit_s=60)
    zeros = np.zeros(60_000)
    table = pa.table({str(index): zeros for index in range(600)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    assert len(sink.getvalue()) < 4 << 20
    bomb = UploadedTable("arrow", sink.getvalue(), 100_000, 1000)
    with pytest.raises((InvalidInputError, FitCrashedError), match="memory"):
        worker.read(bomb)
    fine = worker.read(UploadedTable("csv", b"a\n1\n", 10, 10))
    assert isinstance(fine, NumericTable)
    worker.close()


def test_an_uploaded_file_is_fitted_and_scored_like_its_rows(library: Detectors) -> None:
    text = "a,b,c,d\n" + "\n".join(",".join(map(repr, row)) for row in ROWS.tolist())
    upload = UploadedTable("csv", text.encode(), 1000, 10)
    fit(library, table=upload)
    assert (
        score(library, table=upload).raw
        == score(library, table=NumericTable(ROWS, tuple("abcd"))).raw
    )
    fit(library, "rows", table=TABLE)
    assert score(library, "rows", table=NumericTable(ROWS)).raw == score(library, "rows").raw
    result = score(library, table=upload)
    assert isinstance(result, AnomalyScores)
    assert result.raw == score(library, "rows").raw


ORPHAN = """
import os, signal, sys, threading
import numpy as np
from models.anomaly.workers import WorkerProcesses
from models.types.anomaly import FitRequest, NumericTable
worker = WorkerProcesses(memory_bytes=2 << 30, fit_s=300)
rows = NumericTable(np.random.default_rng(0).normal(size=(40_000, 8)))
request = FitRequest("pump", "one_class_svm", rows)
threading.Thread(target=worker.fit, args=(request, threading.Event()), daemon=True).start()
while not worker.pids:
    pass
print(worker.pids[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_ends_with_its_replica() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, cwd=PROJECT
    )
    pid = int(run.stdout)
    deadline = time.monotonic() + WAIT_S
    while not pid_ended(pid):
        assert time.monotonic() < deadline, "the child goes on without its parent"
        time.sleep(0.05)
