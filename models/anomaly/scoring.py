"""One vectorised call for many requests to one fitted detector."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import get_args

import numpy as np

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix
from models.anomaly.fitted import FittedDetector
from models.anomaly.numeric import encoded
from models.errors import InvalidInputError, ModelError
from models.types.anomaly import (
    AnomalyScoreRequest,
    AnomalyScores,
    Contribution,
    ScoreNormalization,
)

NORMALIZATIONS: tuple[ScoreNormalization, ...] = get_args(ScoreNormalization)


def score_together(
    detector: FittedDetector,
    requests: Sequence[AnomalyScoreRequest],
    threads: Executor,
    n_threads: int,
) -> Sequence[AnomalyScores | ModelError]:
    """One result or error per request, in order. Their tables are not uploads any more."""
    tables = [_encoded(detector, request) for request in requests]
    matrices = [table for table in tables if not isinstance(table, ModelError)]
    try:
        parts = iter(_raw(detector, matrices, threads, n_threads))
    except ModelError as error:
        return [table if isinstance(table, ModelError) else error for table in tables]
    return [
        table if isinstance(table, ModelError) else _scores(detector, request, table, next(parts))
        for table, request in zip(tables, requests, strict=True)
    ]


def check_normalization(normalization: str | None) -> None:
    """Raises InvalidInputError."""
    if normalization is not None and normalization not in NORMALIZATIONS:
        names = ", ".join(NORMALIZATIONS)
        raise InvalidInputError(f"'normalization' must be one of {names}.", "normalization")


def _raw(
    detector: FittedDetector, tables: Sequence[Matrix], threads: Executor, n_threads: int
) -> Sequence[Scores]:
    if not tables:
        return []
    rows = tables[0] if len(tables) == 1 else np.concatenate(tables)
    raw = detector.raw_scores(rows, threads, n_threads)
    return np.split(raw, np.cumsum([len(table) for table in tables])[:-1])


def _encoded(detector: FittedDetector, request: AnomalyScoreRequest) -> Matrix | ModelError:
    """The request's rows as features, or what is wrong with it."""
    try:
        detector.check_backend(request.backend)
        check_normalization(request.normalization)
        if request.threshold is not None and not np.isfinite(request.threshold):
            raise InvalidInputError("'threshold' must be a finite number.", "threshold")
        return encoded(detector.encoder, request.table)
    except ModelError as error:
        return error


def _scores(
    detector: FittedDetector, request: AnomalyScoreRequest, rows: Matrix, raw: Scores
) -> AnomalyScores | ModelError:
    """The learned threshold is applied to raw scores: normalised ones may be equal to it."""
    normalization = request.normalization or detector.info.normalization
    scores = detector.calibration.normalized(raw, normalization)
    if request.threshold is None:
        threshold = detector.calibration.threshold_in(normalization)
        anomalous = raw > detector.calibration.threshold
    else:
        threshold = request.threshold
        anomalous = scores > threshold
    contributions: tuple[tuple[Contribution, ...], ...] = ()
    if request.explain:
        try:
            contributions = detector.explained(rows, anomalous, request.explain)
        except ModelError as error:
            return error
    return AnomalyScores(
        scores=_doubles(scores),
        raw=_doubles(raw),
        threshold=threshold,
        version=detector.info.version,
        anomalous=tuple(anomalous.tolist()),
        contributions=contributions,
    )


def _doubles(values: Scores) -> array[float]:
    return array("d", values.astype(np.float64, copy=False).tobytes())
