"""Scores as files, for clients that ask for them by Accept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from models.types.anomaly import AnomalyScores

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
FIELDS = ("index", "score", "is_anomaly", "raw_score")


def wanted(request: Request) -> Literal["json", "csv", "arrow"]:
    """The first media type of Accept that we have; JSON when there is none."""
    for entry in request.headers.get("accept", "").split(","):
        name = entry.partition(";")[0].strip().lower()
        if name == ARROW:
            return "arrow"
        if name == CSV:
            return "csv"
        if name in ("application/json", "*/*"):
            return "json"
    return "json"


def as_csv(result: AnomalyScores, indices: Sequence[int]) -> Response:
    lines = [",".join(FIELDS)]
    scores, flags, raw = result.scores, result.anomalous, result.raw
    lines += [f"{i},{scores[i]!r},{'true' if flags[i] else 'false'},{raw[i]!r}" for i in indices]
    return Response("\r\n".join(lines) + "\r\n", media_type=CSV, headers=_headers(result))


def as_arrow(result: AnomalyScores, indices: Sequence[int]) -> Response:
    """One record batch. Arrow is imported on first use: few clients want it."""
    import pyarrow as pa

    picked = np.fromiter(indices, np.int64, len(indices))
    columns = {
        "index": picked,
        "score": np.asarray(result.scores, np.float64)[picked],
        "is_anomaly": np.asarray(result.anomalous, np.bool_)[picked],
        "raw_score": np.asarray(result.raw, np.float64)[picked],
    }
    table = pa.table(columns)
    if result.contributions:
        parts = [
            json.dumps({part.column: part.value for part in result.contributions[i]})
            for i in indices
        ]
        table = table.append_column("explanation", pa.array(parts, pa.string()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Response(sink.getvalue().to_pybytes(), media_type=ARROW, headers=_headers(result))


def _headers(result: AnomalyScores) -> dict[str, str]:
    return {
        "x-model-version": str(result.version),
        "x-anomaly-threshold": repr(result.threshold),
    }
