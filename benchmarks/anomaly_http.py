"""Scoring over HTTP beside the bare library: python -m benchmarks.anomaly_http [rounds]

Bulk: 100,000 rows of 20 columns in one request, as Arrow and as JSON, beside `score_samples` of the
same scikit-learn estimator in this process, with one thread each. Single points: 64 clients, with
and without coalescing. Interleaved rounds, medians, ratios.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import yaml
from sklearn.ensemble import IsolationForest

from benchmarks.harness import ROOT, load, serving

ROWS, COLUMNS, TRAINING = 100_000, 20, 2_000
CLIENTS, SECONDS = 64, 4.0
ARROW = "application/vnd.apache.arrow.stream"
LIMITS = {"max_body_bytes": 64 << 20}


def arrow_of(rows: Any) -> bytes:
    table = pa.table({str(index): rows[:, index] for index in range(rows.shape[1])})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def seconds_of(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def medians(rounds: int, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Of interleaved rounds, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds = seconds_of(call)
            if turn:
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def bulk(url: str, rounds: int, rows: Any, training: Any) -> None:
    forest = IsolationForest(random_state=42).fit(training)
    client = httpx.Client(base_url=url, timeout=300)
    fitted = client.post("/v1/anomaly/fit", json={"model": "bulk", "data": training.tolist()})
    fitted.raise_for_status()
    as_arrow = arrow_of(rows)
    as_json = json.dumps({"model": "bulk", "data": rows.tolist()}).encode()
    kinds = {"content-type": ARROW, "accept": ARROW}

    def post(content: bytes, path: str, headers: dict[str, str]) -> httpx.Response:
        return client.post(path, content=content, headers=headers).raise_for_status()

    reply = post(as_arrow, "/v1/anomaly/score?model=bulk", kinds)
    scores = pa.ipc.open_stream(reply.content).read_all().column("raw_score").to_numpy()
    assert np.allclose(scores, -forest.score_samples(rows), rtol=1e-12)
    found = medians(
        rounds,
        {
            "bare library": lambda: forest.score_samples(rows),
            "HTTP, Arrow to Arrow": lambda: post(as_arrow, "/v1/anomaly/score?model=bulk", kinds),
            "HTTP, JSON to JSON": lambda: post(
                as_json, "/v1/anomaly/score", {"content-type": "application/json"}
            ),
        },
    )
    bare = found["bare library"]
    print(f"\n{ROWS} x {COLUMNS} rows, isolation_forest, median of {rounds}")
    for name, seconds in found.items():
        print(f"  {name:22} {seconds:6.2f} s   {seconds / bare:5.2f} x the bare library")


def singles(coalesced: str, alone: str, rounds: int, rows: Any, training: Any) -> None:
    bodies = [{"model": "one", "data": [row]} for row in rows[:512].tolist()]
    for url in (coalesced, alone):
        body = {"model": "one", "data": training.tolist()}
        httpx.post(f"{url}/v1/anomaly/fit", json=body, timeout=120).raise_for_status()
        load(f"{url}/v1/anomaly/score", bodies, clients=CLIENTS, seconds=1.0)
    rates: dict[str, list[float]] = {"coalesced": [], "one call per request": []}
    for _ in range(rounds):
        for name, url in zip(rates, (coalesced, alone), strict=True):
            measured = load(f"{url}/v1/anomaly/score", bodies, clients=CLIENTS, seconds=SECONDS)
            rates[name].append(measured.rate)
    together, apart = (statistics.median(found) for found in rates.values())
    print(f"\n{CLIENTS} clients with one point each, isolation_forest, median of {rounds}")
    print(f"  coalesced              {together:7.0f} requests/s   {together / apart:5.2f} x")
    print(f"  one call per request   {apart:7.0f} requests/s")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    random = np.random.default_rng(0)
    training, rows = random.normal(size=(TRAINING, COLUMNS)), random.normal(size=(ROWS, COLUMNS))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        catalog = Path(folder) / "catalog.yaml"
        shipped = yaml.safe_load((ROOT / "config" / "catalog.yaml").read_text())
        shipped["models"] = [entry for entry in shipped["models"] if entry["task"] == "anomaly"]
        catalog.write_text(yaml.safe_dump(shipped))
        args: dict[str, Any] = {"catalog": str(catalog), "limits": LIMITS}
        server = stack.enter_context(serving(args))
        bulk(server.url, rounds, rows, training)
        other = stack.enter_context(serving(args | {"coalescing": {"enabled": False}}))
        singles(server.url, other.url, rounds, rows, training)


if __name__ == "__main__":
    main()
