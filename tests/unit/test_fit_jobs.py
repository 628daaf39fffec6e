"""Records of fits in the background: what other replicas see, and what is left of dead ones."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from models.anomaly import jobs
from models.anomaly.jobs import FitJobs
from models.anomaly.service import _restored
from models.errors import (
    FitCancelledError,
    InvalidInputError,
    ModelError,
    ModelNotFoundError,
    OverloadedError,
    ReplicaLostError,
    StorageError,
)
from models.stores.storage import Storage, open_storage
from models.types.anomaly import DetectorInfo, FitRequest, Table

REQUEST = FitRequest("pump", "ecod", Table(((1.0,), (2.0,))))
INFO = DetectorInfo(
    "pump", "ecod", 3, 1_760_000_000, 10, 2, ("0",), (("0", "numeric"),), 0.1, 0.5, "raw"
)
WAIT_S = 20.0


class Fit:
    """Waits until opened or cancelled, then gives or raises."""

    def __init__(self, opened: bool = True, error: Exception | None = None) -> None:
        self.error = error
        self.open = threading.Event()
        self.started = threading.Event()
        if opened:
            self.open.set()

    def __call__(self, request: FitRequest, cancelled: threading.Event, wait: bool) -> DetectorInfo:
        assert wait
        self.started.set()
        while not self.open.wait(0.01):
            if cancelled.is_set():
                raise FitCancelledError("The fit has been cancelled.")
        if self.error:
            raise self.error
        return INFO


@pytest.fixture(params=["files", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path) if request.param == "files" else f"memory://{uuid.uuid4().hex}"
    return open_storage(root)


@pytest.fixture(autouse=True)
def _quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.02)


def replica(storage: Storage, fit: Any = None, now: float = 1000.0, **options: Any) -> FitJobs:
    return FitJobs(storage, fit or Fit(), restore=_restored, clock=lambda: now, **options)


def test_any_replica_tells_how_a_job_goes(storage: Storage) -> None:
    fit = Fit(opened=False)
    mine, other = replica(storage, fit), replica(storage)
    job = mine.start(REQUEST)
    assert (job.status, job.model, job.backend) == ("queued", "pump", "ecod")
    assert fit.started.wait(WAIT_S)
    assert other.get(job.id).status in ("queued", "running")
    fit.open.set()
    done = mine.wait(job.id, WAIT_S)
    assert (done.status, done.info, done.error) == ("succeeded", INFO, None)
    assert other.get(job.id) == done
    assert other.list() == [done]


def test_another_replica_cancels_a_job(storage: Storage) -> None:
    fit = Fit(opened=False)
    mine, other = replica(storage, fit), replica(storage)
    job = mine.start(REQUEST)
    assert fit.started.wait(WAIT_S)
    other.cancel(job.id)
    assert mine.wait(job.id, WAIT_S).status == "cancelled"
    assert other.cancel(job.id).status == "cancelled"


@pytest.mark.parametrize(
    "error",
    [InvalidInputError("no", "data.3"), StorageError("full"), ModelError("odd")],
    ids=lambda error: type(error).__name__,
)
def test_what_a_fit_raises_is_told(storage: Storage, error: ModelError) -> None:
    mine = replica(storage, Fit(error=error))
    done = mine.wait(mine.start(REQUEST).id, WAIT_S)
    assert done.status == "failed"
    assert type(done.error) is type(error)
    assert done.error.args == error.args  # type: ignore[union-attr]


def test_a_defect_tells_nothing_of_itself(storage: Storage) -> None:
    mine = replica(storage, Fit(error=ZeroDivisionError("/secret/path")))
    done = mine.wait(mine.start(REQUEST).id, WAIT_S)
    assert str(done.error) == "The fit has failed."


def test_a_job_of_a_dead_replica_has_failed(storage: Storage) -> None:
    mine = replica(storage, Fit(opened=False))
    job = mine.start(REQUEST)
    later = replica(storage, now=1000.0 + jobs.SILENCE_S + 1)
    lost = later.get(job.id)
    assert lost.status == "failed"
    assert isinstance(lost.error, ReplicaLostError)
    mine.close()


def test_closing_ends_all_jobs(storage: Storage) -> None:
    mine = replica(storage, Fit(opened=False))
    job = mine.start(REQUEST)
    mine.close()
    assert replica(storage).get(job.id).status == "cancelled"


def test_jobs_are_bounded_and_forgotten(storage: Storage) -> None:
    fit = Fit(opened=False)
    mine = replica(storage, fit, max_jobs=1)
    job = mine.start(REQUEST)
    with pytest.raises(OverloadedError):
        mine.start(REQUEST)
    fit.open.set()
    mine.wait(job.id, WAIT_S)
    later = replica(storage, now=1000.0 + jobs.KEPT_S + 1)
    newer = later.start(REQUEST)
    later.wait(newer.id, WAIT_S)
    assert [found.id for found in later.list()] == [newer.id]


@pytest.mark.parametrize("name", ["", "..", "../x", "fit_" + "0" * 24, "fit_" + "g" * 24])
def test_unknown_jobs_are_not_found(storage: Storage, name: str) -> None:
    for call in (replica(storage).get, replica(storage).cancel):
        with pytest.raises(ModelNotFoundError):
            call(name)
