"""All of anomaly detection that a replica serves: detectors, background fits, streams, series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.anomaly.detectors import Detectors
from models.anomaly.fitted import FORMAT, stored_info
from models.anomaly.jobs import FitJobs
from models.anomaly.series import detect, detect_last
from models.anomaly.streaming import StreamingDetectors
from models.anomaly.workers import WorkerProcesses
from models.types.anomaly import DetectorInfo, SeriesRequest, SeriesResult


class AnomalyService(Detectors):
    """Fits run in child processes with `fit_memory_bytes`, for `fit_s` at most."""

    def __init__(
        self,
        *,
        root: str | Path,
        n_threads: int,
        fit_memory_bytes: int,
        fit_s: float,
        max_fits: int,
        keep_versions: int,
        max_cached_bytes: int,
        cache_ttl_s: float,
    ) -> None:
        worker = WorkerProcesses(memory_bytes=fit_memory_bytes, fit_s=fit_s, n_threads=n_threads)
        super().__init__(
            root=root,
            n_threads=n_threads,
            worker=worker,
            keep_versions=keep_versions,
            max_cached_bytes=max_cached_bytes,
            cache_ttl_s=cache_ttl_s,
            max_fits=max_fits,
        )
        # Its fitted detectors are of no other use, so they have a store of their own.
        streamed = Detectors(
            root=f"{root}/streams",
            n_threads=n_threads,
            worker=worker,
            max_cached_bytes=max_cached_bytes,
            cache_ttl_s=cache_ttl_s,
            max_fits=max_fits,
        )
        self.streams = StreamingDetectors(streamed)
        self.jobs = FitJobs(self.store.storage, self.fit, restore=_restored)

    def close(self) -> None:
        self.jobs.close()
        self.streams.close()
        super().close()

    def judge_series(self, request: SeriesRequest, last: bool) -> SeriesResult:
        """All of a series, or its last value by those before. Raises InvalidInputError."""
        return detect_last(request) if last else detect(request)


def _restored(fields: dict[str, Any]) -> DetectorInfo:
    """The detector of a job's record."""
    return stored_info(fields["version"], {"format": FORMAT, "info": fields})
