"""Scoring over HTTP beside the bare library, and single points with and without coalescing.

    python benchmarks/anomaly_http.py [--rounds 5] [--seconds 4]

Bulk: 100,000 rows of 20 columns in one request, as Arrow and as JSON, beside `score_samples` of the
same scikit-learn estimator in this process, one thread each; CPU time is that of all processes of
the server, the client's not included. Single points: 64 clients, two servers in turns.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
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
from harness import ROOT, Server, load, serving
from sklearn.ensemble import IsolationForest

ROWS, COLUMNS, TRAINING = 100_000, 20, 2_000
CLIENTS = 64
ARROW = "application/vnd.apache.arrow.stream"
LIMITS = {"max_body_bytes": 64 << 20}


def arrow_of(rows: Any) -> bytes:
    table = pa.table({str(index): rows[:, index] for index in range(rows.shape[1])})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def medians(
    rounds: int, calls: dict[str, Callable[[], Any]], cpu: dict[str, Callable[[], float]]
) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of interleaved rounds, after one that does not count."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            used, begin = cpu[name](), time.perf_counter()
            call()
            found = (time.perf_counter() - begin, cpu[name]() - used)
            if turn:
                times[name].append(found)
    return {
        name: (statistics.median(w for w, _ in found), statistics.median(c for _, c in found))
        for name, found in times.items()
    }


def bulk(server: Server, rounds: int, rows: Any, training: Any) -> None:
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
    assert np.allclose(scores, -forest.score_samples(rows), rtol=1e-12)
    calls: dict[str, Callable[[], Any]] = {
        "bare library": lambda: forest.score_samples(rows),
        "HTTP, Arrow to Arrow": lambda: post(as_arrow, "/v1/anomaly/score?model=bulk", kinds),
        "HTTP, JSON to JSON": lambda: post(
            as_json, "/v1/anomaly/score", {"content-type": "application/json"}
        ),
    }
    cpu = dict.fromkeys(calls, server.cpu_seconds) | {"bare library": time.process_time}
    found = medians(rounds, calls, cpu)
    bare = found["bare library"]
    print(f"\n{ROWS} x {COLUMNS} rows, isolation_forest, median of {rounds}")
    print("| | seconds | to the library | CPU seconds | to the library |\n|---|---|---|---|---|")
    for name, (wall, used) in found.items():
        print(f"| {name} | {wall:.2f} | {wall / bare[0]:.2f} | {used:.2f} | {used / bare[1]:.2f} |")


def singles(urls: tuple[str, str], rounds: int, seconds: float, rows: Any, training: Any) -> None:
    bodies = [{"model": "one", "data": [row]} for row in rows[:512].tolist()]
    for url in urls:
        body = {"model": "one", "data": training.tolist()}
        httpx.post(f"{url}/v1/anomaly/fit", json=body, timeout=120).raise_for_status()
        load(f"{url}/v1/anomaly/score", bodies, clients=CLIENTS, seconds=1.0)
    rates: dict[str, list[float]] = {"coalesced": [], "one call per request": []}
    for _ in range(rounds):
        for name, url in zip(rates, urls, strict=True):
            measured = load(f"{url}/v1/anomaly/score", bodies, clients=CLIENTS, seconds=seconds)
            rates[name].append(measured.rate)
    together, apart = (statistics.median(found) for found in rates.values())
    print(f"\n{CLIENTS} clients with one point each, isolation_forest, median of {rounds}")
    print(f"  coalesced              {together:7.0f} requests/s   {together / apart:5.2f} x")
    print(f"  one call per request   {apart:7.0f} requests/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    training, rows = random.normal(size=(TRAINING, COLUMNS)), random.normal(size=(ROWS, COLUMNS))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        catalog = Path(folder) / "catalog.yaml"
        shipped = yaml.safe_load((ROOT / "config" / "catalog.yaml").read_text())
        shipped["models"] = [entry for entry in shipped["models"] if entry["task"] == "anomaly"]
        catalog.write_text(yaml.safe_dump(shipped))
        args: dict[str, Any] = {"catalog": str(catalog), "limits": LIMITS}
        server = stack.enter_context(serving(args))
        bulk(server, options.rounds, rows, training)
        other = stack.enter_context(serving(args | {"coalescing": {"enabled": False}}))
        singles((server.url, other.url), options.rounds, options.seconds, rows, training)


if __name__ == "__main__":
    main()
