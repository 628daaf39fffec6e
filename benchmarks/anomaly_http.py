"""Scoring over HTTP beside the bare library, and single points with and without coalescing.

    python benchmarks/anomaly_http.py [--rounds 3] [--seconds 3]

Bulk: 100,000 rows of 20 columns in one request, as Arrow and as JSON, beside `score_samples` of the
same scikit-learn estimator in this process, one thread each; CPU time is that of all processes of
the server, the client's not included. Single points: 64 clients, two servers in turns.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import yaml
from harness import (
    ROOT,
    Goal,
    Measure,
    Report,
    Server,
    in_turns,
    load,
    parser,
    report,
    serving,
)
from sklearn.ensemble import IsolationForest

ROWS, COLUMNS, TRAINING = 100_000, 20, 2_000
CLIENTS = 64
BULK_ROUNDS = 9
"""At least: they are short, and the first ones still find memory that nobody has touched."""
WALL, CPU, RATE = "seconds", "CPU seconds", "requests/s"
LIBRARY, TOGETHER, APART = "the library", "coalesced", "one call per request"
ARROW = "application/vnd.apache.arrow.stream"
LIMITS = {"max_body_bytes": 64 << 20}
ONE_THREAD = {"threads": 1}


def arrow_of(rows: Any) -> bytes:
    table = pa.table({str(index): rows[:, index] for index in range(rows.shape[1])})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def timed(call: Callable[[], Any], cpu_seconds: Callable[[], float]) -> Measure:
    """Wall and CPU seconds of one call."""

    def measure() -> dict[str, float]:
        used, begin = cpu_seconds(), time.perf_counter()
        call()
        return {WALL: time.perf_counter() - begin, CPU: cpu_seconds() - used}

    return measure


def bulk(found: Report, server: Server, rounds: int, rows: Any, training: Any) -> None:
    forest = IsolationForest(random_state=42).fit(training)
    client = httpx.Client(base_url=server.url, timeout=300)
    fitted = client.post("/v1/anomaly/fit", json={"model": "bulk", "data": training.tolist()})
    fitted.raise_for_status()
    as_arrow = arrow_of(rows)
    as_json = json.dumps({"model": "bulk", "data": rows.tolist()}).encode()
    kinds = {"content-type": ARROW, "accept": ARROW}

    def post(content: bytes, path: str, headers: dict[str, str]) -> httpx.Response:
        return client.post(path, content=content, headers=headers).raise_for_status()

    reply = post(as_arrow, "/v1/anomaly/score?model=bulk", kinds)
    scores = pa.ipc.open_stream(reply.content).read_all().column("raw_score").to_numpy()
    if not np.allclose(scores, -forest.score_samples(rows), rtol=1e-12):
        raise SystemExit("the server's scores are not the library's")
    bare = timed(lambda: forest.score_samples(rows), time.process_time)
    json_kind = {"content-type": "application/json"}
    calls: dict[str, Callable[[], Any]] = {
        "Arrow": lambda: post(as_arrow, "/v1/anomaly/score?model=bulk", kinds),
        "JSON": lambda: post(as_json, "/v1/anomaly/score", json_kind),
    }
    for name, call in calls.items():
        sides = {"HTTP": timed(call, server.cpu_seconds), LIBRARY: bare}
        goals = {(LIBRARY, WALL): Goal(1.3, at_most=True)} if name == "Arrow" else {}
        measured = in_turns(sides, rounds)
        found.compare(f"{ROWS} x {COLUMNS} rows, {name}", measured, "HTTP", goals)


def singles(
    found: Report, urls: dict[str, str], rounds: int, seconds: float, rows: Any, training: Any
) -> None:
    bodies = [{"model": "one", "data": [row]} for row in rows[:512].tolist()]
    for url in urls.values():
        body = {"model": "one", "data": training.tolist()}
        httpx.post(f"{url}/v1/anomaly/fit", json=body, timeout=120).raise_for_status()

    def measure(url: str) -> dict[str, float]:
        done = load(f"{url}/v1/anomaly/score", bodies, clients=CLIENTS, seconds=seconds)
        return {RATE: done.rate}

    sides = {name: partial(measure, url) for name, url in urls.items()}
    goal = {(APART, RATE): Goal(10)}
    found.compare(f"{CLIENTS} clients, a point each", in_turns(sides, rounds), TOGETHER, goal)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    found = report("Anomaly scoring over HTTP")
    random = np.random.default_rng(0)
    training, rows = random.normal(size=(TRAINING, COLUMNS)), random.normal(size=(ROWS, COLUMNS))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        catalog = Path(folder) / "catalog.yaml"
        shipped = yaml.safe_load((ROOT / "config" / "catalog.yaml").read_text())
        shipped["models"] = [entry for entry in shipped["models"] if entry["task"] == "anomaly"]
        catalog.write_text(yaml.safe_dump(shipped))
        args: dict[str, Any] = {"catalog": str(catalog), "limits": LIMITS, "anomaly": ONE_THREAD}
        server = stack.enter_context(serving(args))
        bulk(found, server, max(options.rounds, BULK_ROUNDS), rows, training)
        other = stack.enter_context(serving(args | {"coalescing": {"enabled": False}}))
        urls = {TOGETHER: server.url, APART: other.url}
        singles(found, urls, options.rounds, options.seconds, rows, training)
    found.write()


if __name__ == "__main__":
    main()
