"""Fits in the background, whose state any replica can tell.

    jobs/<id>.json      what the replica that runs the fit says of it, every second
    jobs/<id>.cancel    there when a client wants the fit to end

The record outlives its replica: a fit that has not been heard of for a while has died with it.
"""

from __future__ import annotations

import builtins
import dataclasses
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from models import errors
from models.errors import (
    FitCancelledError,
    ModelError,
    ModelNotFoundError,
    OverloadedError,
    ReplicaLostError,
    StorageError,
)
from models.stores.storage import Storage
from models.types.anomaly import DetectorInfo, FitJob, FitRequest

LOGGER = logging.getLogger(__name__)

FOLDER = "jobs"
ID = re.compile(r"fit_[0-9a-f]{24}")
HEARTBEAT_S = 1.0
SILENCE_S = 30.0
"""A running fit that says nothing for so long has died with its replica."""
KEPT_S = 86_400.0
"""For how long a finished job can be asked for."""
DONE = ("succeeded", "failed", "cancelled")


class Fit(Protocol):
    def __call__(
        self, request: FitRequest, cancelled: threading.Event, wait: bool
    ) -> DetectorInfo: ...


class FitJobs:
    """The jobs of one replica, and the records of all. At most `max_jobs` wait or run here."""

    def __init__(
        self,
        storage: Storage,
        fit: Fit,
        *,
        restore: Callable[[dict[str, Any]], DetectorInfo],
        max_jobs: int = 16,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._fit = fit
        self._restore = restore
        self._max_jobs = max_jobs
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}

    def start(self, request: FitRequest) -> FitJob:
        """Raises OverloadedError or StorageError."""
        self._forget_old()
        now = self._clock()
        job = FitJob(
            f"fit_{secrets.token_hex(12)}", request.name, request.backend, "queued", now, 0.0, now
        )
        cancelled = threading.Event()
        with self._lock:
            if len(self._running) >= self._max_jobs:
                raise OverloadedError("Too many fits are waiting.", retry_after=10.0)
            self._running[job.id] = cancelled
        try:
            self._write(job)
        except StorageError:
            self._running.pop(job.id, None)
            raise
        thread = threading.Thread(
            target=self._run, args=(job, request, cancelled), name=job.id, daemon=True
        )
        self._threads[job.id] = thread
        thread.start()
        return job

    def get(self, job_id: str) -> FitJob:
        """Raises ModelNotFoundError or StorageError."""
        if not ID.fullmatch(job_id):
            raise ModelNotFoundError(job_id)
        try:
            job = self._parsed(json.loads(self._storage.read(f"{FOLDER}/{job_id}.json")))
        except FileNotFoundError:
            raise ModelNotFoundError(job_id) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError("The job cannot be read.") from error
        if job.status not in DONE and self._clock() - job.updated > SILENCE_S:
            lost = ReplicaLostError("The replica that ran this fit has died.")
            return dataclasses.replace(job, status="failed", error=lost, finished=job.updated)
        return job

    def list(self) -> builtins.list[FitJob]:
        """The newest first."""
        found = []
        for job_id in self._ids():
            try:
                found.append(self.get(job_id))
            except ModelError:
                continue
        return sorted(found, key=lambda job: -job.created)

    def cancel(self, job_id: str) -> FitJob:
        """End a job that has not ended. Raises ModelNotFoundError or StorageError."""
        job = self.get(job_id)
        if job.status in DONE:
            return job
        event = self._running.get(job_id)
        if event is not None:
            event.set()
            return self.wait(job_id)
        try:
            self._storage.replace(f"{FOLDER}/{job_id}.cancel", b"")
        except OSError as error:
            raise StorageError("The job cannot be cancelled.") from error
        return job

    def wait(self, job_id: str, timeout_s: float = 10.0) -> FitJob:
        """The job when its fit has ended, if it runs here; as it is after the timeout."""
        thread = self._threads.get(job_id)
        if thread is not None:
            thread.join(timeout_s)
        return self.get(job_id)

    def close(self) -> None:
        """End all fits; each says that it was cancelled."""
        for event in list(self._running.values()):
            event.set()
        for thread in list(self._threads.values()):
            thread.join(5.0)

    def _run(self, job: FitJob, request: FitRequest, cancelled: threading.Event) -> None:
        started = self._clock()
        job = dataclasses.replace(job, status="running", started=started, updated=started)
        ended = threading.Event()
        watcher = threading.Thread(
            target=self._beat, args=(job, cancelled, ended), name=f"{job.id} watch", daemon=True
        )
        watcher.start()
        outcome: dict[str, Any]
        try:
            outcome = {"status": "succeeded", "info": self._fit(request, cancelled, wait=True)}
        except FitCancelledError:
            outcome = {"status": "cancelled"}
        except ModelError as error:
            outcome = {"status": "failed", "error": error}
        except Exception:
            LOGGER.exception("a fit in the background has failed")
            outcome = {"status": "failed", "error": ModelError("The fit has failed.")}
        ended.set()
        watcher.join()
        now = self._clock()
        self._say(dataclasses.replace(job, updated=now, finished=now, **outcome))
        with self._lock:
            self._running.pop(job.id, None)
            self._threads.pop(job.id, None)

    def _beat(self, job: FitJob, cancelled: threading.Event, ended: threading.Event) -> None:
        """Say that the fit goes on, and look whether it shall."""
        while True:
            self._say(dataclasses.replace(job, updated=self._clock()))
            if ended.wait(HEARTBEAT_S):
                return
            try:
                if self._storage.exists(f"{FOLDER}/{job.id}.cancel"):
                    cancelled.set()
            except OSError:
                LOGGER.warning("cannot see whether a fit is to be cancelled")

    def _say(self, job: FitJob) -> None:
        try:
            self._write(job)
        except StorageError:
            LOGGER.warning("the state of a fit cannot be written")

    def _write(self, job: FitJob) -> None:
        fields = dataclasses.asdict(dataclasses.replace(job, error=None))
        if isinstance(job.error, ModelError):
            fields["error"] = [type(job.error).__name__, list(job.error.args)]
        try:
            self._storage.replace(f"{FOLDER}/{job.id}.json", json.dumps(fields).encode())
        except OSError as error:
            raise StorageError("The job could not be stored.") from error

    def _parsed(self, fields: dict[str, Any]) -> FitJob:
        """Raises ValueError, KeyError or TypeError."""
        if fields["info"] is not None:
            fields["info"] = self._restore(fields["info"])
        if fields["error"] is not None:
            name, arguments = fields["error"]
            fields["error"] = _error(name, arguments)
        return FitJob(**fields)

    def _ids(self) -> builtins.list[str]:
        try:
            names = self._storage.files(FOLDER)
        except OSError as error:
            raise StorageError("The jobs cannot be listed.") from error
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def _forget_old(self) -> None:
        before = self._clock() - KEPT_S
        for job in self.list():
            if job.updated < before:
                for ending in ("json", "cancel"):
                    try:
                        self._storage.remove(f"{FOLDER}/{job.id}.{ending}")
                    except OSError:
                        continue


def _error(name: str, arguments: builtins.list[Any]) -> ModelError:
    """One of ours, by the name of its class."""
    kind = getattr(errors, str(name), None)
    if isinstance(kind, type) and issubclass(kind, ModelError):
        return kind(*arguments)
    return ModelError("The fit has failed.")
