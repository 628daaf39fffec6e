"""Anomaly detection through the HTTP application and a real replica."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from deployments.ingress.routes import anomaly, anomaly_series, anomaly_tables
from models.types.anomaly import NumericTable, Table
from tests.anomaly_app import LocalReplicas, anomaly_client
from tests.detector_samples import ROWS

NAMES = ("a", "b", "c", "d")
DATA = ROWS.tolist()
NAMED = [dict(zip(NAMES, row, strict=True)) for row in DATA]
TABLE = pa.table({name: ROWS[:, index] for index, name in enumerate(NAMES)})
WAIT_S = 60.0
SLOW = np.random.default_rng(0).normal(size=(40_000, 8))
"""A one-class SVM takes tens of seconds for them."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, LocalReplicas]]:
    with anomaly_client(tmp_path_factory.mktemp("data")) as served:
        yield served


@pytest.fixture
def client(served: tuple[TestClient, LocalReplicas]) -> TestClient:
    return served[0]


def fit(client: TestClient, name: str, data: Any = DATA, **fields: Any) -> dict[str, Any]:
    body = {"model": name, "data": data, "backend": "ecod", "contamination": 0.05, **fields}
    reply = client.post("/v1/anomaly/fit", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def scores(client: TestClient, name: str, data: Any = DATA, **fields: Any) -> list[float]:
    reply = client.post("/v1/anomaly/score", json={"model": name, "data": data, **fields})
    assert reply.status_code == 200, reply.text
    return [row["raw_score"] for row in reply.json()["data"]]


def csv_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def arrow_of(table: pa.Table, kind: Any = pa.ipc.new_stream) -> bytes:
    sink = io.BytesIO()
    with kind(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


FILES = {
    "text/csv": csv_of(TABLE),
    "application/vnd.apache.arrow.stream": arrow_of(TABLE),
    "application/vnd.apache.arrow.file": arrow_of(TABLE, pa.ipc.new_file),
    "application/vnd.apache.parquet": parquet_of(TABLE),
}


# --- fit, score, detect ----------------------------------------------------------------------


def test_a_fit_says_what_is_stored(client: TestClient) -> None:
    reply = fit(client, "plain", epochs=3, scaler_type="robust")
    assert (reply["model"], reply["version"], reply["samples_fitted"]) == ("plain", 1, len(DATA))
    assert reply["saved_path"] == "plain@1"
    assert reply["model_params"]["parameters"]["scaler"] == "robust"
    assert reply["encoder"]["features"] == ["0", "1", "2", "3"]
    assert len(scores(client, "plain")) == len(DATA)
    saved = client.post("/v1/anomaly/save", json={"model": "plain", "backend": "ecod"}).json()
    assert (saved["filename"], saved["path"]) == ("plain_ecod.skops", "plain@1")
    loaded = client.post("/v1/anomaly/load", json={"model": "plain"}).json()
    assert loaded["is_fitted"] is True
    assert loaded["encoder_schema"] == dict.fromkeys("0123", "numeric")
    assert loaded["threshold"] == reply["model_params"]["threshold"]
    assert client.post("/v1/anomaly/load", json={"model": "gone"}).status_code == 404
    assert client.post("/v1/anomaly/save", json={"model": "gone"}).status_code == 404


def test_a_large_answer_is_written_beside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def as_csv(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return anomaly_tables.as_csv(*args)

    monkeypatch.setattr(anomaly, "as_csv", as_csv)
    monkeypatch.setattr(anomaly, "INLINE_ROWS", 2)
    fit(client, "large")
    for count in (2, 3):
        body = {"model": "large", "data": DATA[:count]}
        reply = client.post("/v1/anomaly/score", json=body, headers={"accept": "text/csv"})
        assert len(reply.text.splitlines()) == 1 + count
    assert [name.startswith("asyncio_") for name in threads] == [False, True]


def test_detect_returns_the_anomalies_with_their_explanation(client: TestClient) -> None:
    fit(client, "pump", NAMED)
    body = {"model": "pump", "data": NAMED, "explain": 2}
    reply = client.post("/v1/anomaly/detect", json=body).json()
    assert 0 < reply["total_count"] == len(reply["data"]) < 30
    assert reply["data"][0]["is_anomaly"] is True
    for row in reply["data"]:
        parts = row["explanation"]
        assert len(parts) == 2
        assert {part["feature"] for part in parts} <= set(NAMES)
        assert abs(parts[0]["contribution"]) >= abs(parts[1]["contribution"])
    plain = client.post("/v1/anomaly/score", json={"model": "pump", "data": NAMED}).json()
    assert "explanation" not in plain["data"][0]
    assert plain["summary"]["anomaly_count"] == reply["total_count"]


def test_auto_says_what_it_chose_and_why(client: TestClient) -> None:
    reply = fit(client, "chosen", backend="auto")
    candidates = reply["selection"]["candidates"]
    assert reply["backend"] == candidates[0]["backend"] != "auto"
    assert {"backend", "agreement", "stability"} == set(candidates[0])
    detector = client.get("/v1/anomaly/models/chosen").json()
    assert detector["selection"] == reply["selection"]
    assert scores(client, "chosen", backend="auto") == scores(client, "chosen")
    assert "selection" not in fit(client, "plain")


def test_backends_describe_themselves(client: TestClient) -> None:
    entries = {e["name"]: e for e in client.get("/v1/anomaly/backends").json()["data"]}
    assert {"auto", "isolation_forest", "ecod", "knn", "autoencoder"} <= set(entries)
    forest = entries["isolation_forest"]
    assert forest["category"]
    assert forest["best_for"]
    assert "n_estimators" in [parameter["name"] for parameter in forest["parameters"]]


# --- versions and names ----------------------------------------------------------------------


def test_versions_are_scored_listed_and_deleted(client: TestClient) -> None:
    first = fit(client, "line")
    fit(client, "line", (ROWS * 2).tolist())
    assert scores(client, "line@1") != scores(client, "line")
    assert (
        scores(client, "line@2") == scores(client, "line@latest") == scores(client, "line-latest")
    )
    listed = client.get("/v1/anomaly/models/line/versions").json()["data"]
    assert [entry["version"] for entry in listed] == [2, 1]
    assert (
        client.get("/v1/anomaly/models/line@1").json()["threshold"]
        == (first["model_params"]["threshold"])
    )
    assert client.delete("/v1/anomaly/models/line/versions/2").json()["id"] == "line@2"
    assert client.get("/v1/anomaly/models/line").json()["version"] == 1
    for path in ("line/versions/2", "line/versions/x", "gone/versions/1", "line@7"):
        assert client.delete(f"/v1/anomaly/models/{path}").status_code == 404
    assert client.delete("/v1/anomaly/models/line_ecod.pkl").json()["deleted"] is True
    assert client.get("/v1/anomaly/models/line").status_code == 404


def test_the_oldest_versions_leave(tmp_path: Path) -> None:
    with anomaly_client(tmp_path, anomaly={"keep_versions": 2}) as (client, _):
        for _ in range(3):
            fit(client, "line", DATA[:20])
        listed = client.get("/v1/anomaly/models/line/versions").json()["data"]
        assert [entry["version"] for entry in listed] == [3, 2]
        reply = client.post("/v1/anomaly/score", json={"model": "line@1", "data": DATA})
        assert reply.status_code == 404


def test_an_alias_stands_for_a_version_and_a_rename_moves_all(client: TestClient) -> None:
    fit(client, "old")
    fit(client, "old", (ROWS * 2).tolist())
    reply = client.post("/v1/anomaly/models/old@1/alias", json={"alias": "live"})
    assert reply.json() == {"object": "anomaly.alias", "alias": "live", "model": "old@1"}
    assert scores(client, "live") == scores(client, "old@1")
    listed = client.get("/v1/anomaly/models/old/versions").json()["data"]
    assert [entry["aliases"] for entry in listed] == [[], ["live"]]
    reply = client.post("/v1/anomaly/fit", json={"model": "live", "data": DATA})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "model"
    before = scores(client, "old")
    renamed = client.post("/v1/anomaly/models/old/rename", json={"name": "new"}).json()
    assert (renamed["id"], renamed["version"]) == ("new", 2)
    assert scores(client, "new") == before
    assert client.get("/v1/anomaly/models/old").status_code == 404
    fit(client, "other")
    taken = client.post("/v1/anomaly/models/other/rename", json={"name": "new"})
    assert (taken.status_code, taken.json()["error"]["param"]) == (400, "name")
    assert client.delete("/v1/anomaly/models/live").status_code == 200
    assert client.get("/v1/anomaly/models/new").status_code == 200
    assert client.post("/v1/anomaly/models/gone/alias", json={"alias": "x"}).status_code == 404


def test_a_threshold_changes_without_a_fit(client: TestClient) -> None:
    fit(client, "judge")
    before = scores(client, "judge")
    changed = client.post("/v1/anomaly/models/judge/threshold", json={"contamination": 0.2}).json()
    assert (changed["version"], changed["contamination"]) == (2, 0.2)
    body = {"model": "judge", "data": DATA, "normalization": "raw"}
    found = client.post("/v1/anomaly/detect", json=body).json()
    assert found["summary"]["anomalies_detected"] == round(0.2 * len(DATA))
    assert scores(client, "judge") == before
    fields = {"threshold": before[0], "normalization": "raw"}
    assert client.post("/v1/anomaly/models/judge/threshold", json=fields).status_code == 200
    reply = client.post("/v1/anomaly/score", json=body).json()
    assert [row["is_anomaly"] for row in reply["data"]] == [score > before[0] for score in before]
    assert [row["raw_score"] for row in reply["data"]] == before


@pytest.mark.parametrize(
    ("name", "fields", "status", "param"),
    [
        ("bound", {}, 400, None),
        ("bound", {"threshold": 0.5, "contamination": 0.1}, 400, None),
        ("bound", {"threshold": 2.0}, 400, "threshold"),
        ("bound", {"contamination": 0.7}, 400, "contamination"),
        ("bound@1", {"threshold": 0.5}, 400, "model"),
        ("unknown", {"threshold": 0.5}, 404, None),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(
    client: TestClient, name: str, fields: dict[str, Any], status: int, param: str | None
) -> None:
    fit(client, "bound")
    reply = client.post(f"/v1/anomaly/models/{name}/threshold", json=fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)


def test_overwrite_false_refuses_a_name_that_is_taken(client: TestClient) -> None:
    fit(client, "mine", overwrite=False)
    body = {"model": "mine", "data": DATA, "overwrite": False}
    reply = client.post("/v1/anomaly/fit", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "overwrite")
    assert client.get("/v1/anomaly/models/mine").json()["version"] == 1


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", FILES)
def test_a_file_is_fitted_and_scored_as_its_rows(client: TestClient, media_type: str) -> None:
    fit(client, "rows", NAMED)
    expected = scores(client, "rows", NAMED)
    reply = client.post(
        "/v1/anomaly/fit",
        params={"model": "file", "backend": "ecod", "contamination": "0.05"},
        content=FILES[media_type],
        headers={"content-type": media_type},
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["encoder"]["features"] == list(NAMES)
    reply = client.post(
        "/v1/anomaly/score",
        params={"model": "file"},
        content=FILES[media_type],
        headers={"content-type": media_type},
    )
    assert [row["raw_score"] for row in reply.json()["data"]] == expected


@pytest.mark.parametrize(
    ("media_type", "data", "code"),
    [
        ("text/csv", b"", 400),
        ("text/csv", b"a,b\n", 400),
        ("text/csv", b"a,b\n1,2\n3\n", 400),
        ("text/csv", b"a,b\n1,2\n3,nan\n", 400),
        ("text/csv", b"a,a\n1,2\n", 400),
        ("text/csv", b"\xff\xfe\x00", 400),
        ("application/vnd.apache.arrow.stream", b"no arrow", 400),
        ("application/vnd.apache.arrow.stream", FILES["text/csv"], 400),
        ("application/vnd.apache.arrow.file", b"ARROW1\0\0junk", 400),
        ("application/vnd.apache.parquet", b"PAR1junkPAR1", 400),
        ("application/vnd.apache.parquet", FILES["application/vnd.apache.parquet"][:-90], 400),
        ("application/octet-stream", b"x", 415),
        ("application/x-pickle", b"cos\nsystem\n", 415),
    ],
)
def test_what_is_no_table_is_refused(
    client: TestClient, media_type: str, data: bytes, code: int
) -> None:
    fit(client, "ab", [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    reply = client.post(
        "/v1/anomaly/score?model=ab", content=data, headers={"content-type": media_type}
    )
    assert reply.status_code == code, reply.text
    assert "/" not in reply.json()["error"]["message"].replace("application/json", "")


def test_files_have_limits(tmp_path: Path) -> None:
    limits = {"max_rows": 50, "max_columns": 5, "max_table_bytes": 4000}
    with anomaly_client(tmp_path, limits=limits) as (client, _):
        fit(client, "ab", [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
        wide = pa.table({str(i): [1.0] for i in range(6)})
        tall = pa.table({"0": [1] * 51, "1": [1] * 51})
        for table, write in ((wide, csv_of), (tall, csv_of), (wide, parquet_of), (tall, arrow_of)):
            media_type = {csv_of: "text/csv", parquet_of: "application/vnd.apache.parquet"}.get(
                write, "application/vnd.apache.arrow.stream"
            )
            reply = client.post(
                "/v1/anomaly/score?model=ab",
                content=write(table),
                headers={"content-type": media_type},
            )
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "data")
            assert "limit" in reply.json()["error"]["message"]
        reply = client.post(
            "/v1/anomaly/score?model=ab",
            content=b"1" * 4001,
            headers={"content-type": "text/csv"},
        )
        assert reply.status_code == 413


def test_many_numbers_are_scored_as_few(served: tuple[TestClient, LocalReplicas]) -> None:
    """A large request travels as a matrix; what is not all numbers does not."""
    client, replicas = served
    fit(client, "rows", NAMED)
    expected = scores(client, "rows", NAMED)
    times = 20
    replicas.calls.clear()
    assert scores(client, "rows", [dict(reversed(row.items())) for row in NAMED] * times) == (
        expected * times
    )
    [(_, (_, [request]))] = replicas.calls
    assert isinstance(request.table, NumericTable)
    assert request.table.columns == tuple(reversed(NAMES))
    ragged = [[1.0] * 4] * 3000 + [[1.0] * 3, [1.0] * 5]
    reply = client.post("/v1/anomaly/score", json={"model": "plain4", "data": ragged})
    assert reply.status_code == 404
    fit(client, "plain4")
    reply = client.post("/v1/anomaly/score", json={"model": "plain4", "data": ragged})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "data.3000")
    for cell in ("text", True, None, 10**400):
        many = [[1.0] * 4] * 3000 + [[1.0, cell, 1.0, 1.0]]
        reply = client.post("/v1/anomaly/score", json={"model": "rows", "data": many})
        assert reply.status_code == 400
    assert isinstance(replicas.calls[-1][1][1][0].table, Table)


def test_texts_and_missing_cells_of_a_file(client: TestClient) -> None:
    table = pa.table(
        {
            "kind": pa.array(["x", "y", "x", "z"] * 10).dictionary_encode(),
            "on": [True, False] * 20,
            "value": pa.array([1.5, None, 2, 3] * 10),
        }
    )
    query = {"model": "mixed", "backend": "hbos", "schema": json.dumps({"kind": "label"})}
    reply = client.post(
        "/v1/anomaly/fit",
        params=query,
        content=arrow_of(table),
        headers={"content-type": "application/vnd.apache.arrow.stream"},
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "data.1")
    reply = client.post(
        "/v1/anomaly/fit",
        params={**query, "missing": "median"},
        content=csv_of(table),
        headers={"content-type": "text/csv"},
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["encoder"]["schema"] == {
        "kind": "label",
        "on": "binary",
        "value": "numeric",
    }
    for bad in ("{", "5", '{"kind": "nope"}'):
        reply = client.post(
            "/v1/anomaly/fit", params={**query, "schema": bad}, content=b"a\n1\n",
            headers={"content-type": "text/csv"},
        )  # fmt: skip
        assert reply.status_code == 400
        assert reply.json()["error"]["param"].startswith("schema")


def test_scores_come_as_files_too(client: TestClient) -> None:
    fit(client, "pump", NAMED)
    expected = client.post("/v1/anomaly/score", json={"model": "pump", "data": NAMED}).json()
    body = {"model": "pump", "data": NAMED}
    reply = client.post(
        "/v1/anomaly/score",
        json=body,
        headers={"accept": "application/vnd.apache.arrow.stream, application/json;q=0.5"},
    )
    table = pa.ipc.open_stream(reply.content).read_all()
    assert table.column("raw_score").to_pylist() == [r["raw_score"] for r in expected["data"]]
    assert table.column("is_anomaly").to_pylist() == [r["is_anomaly"] for r in expected["data"]]
    assert reply.headers["x-model-version"] == str(expected["version"])
    reply = client.post("/v1/anomaly/detect", json=body, headers={"accept": "text/csv"})
    found = pyarrow.csv.read_csv(io.BytesIO(reply.content))
    anomalies = [row for row in expected["data"] if row["is_anomaly"]]
    assert found.column("index").to_pylist() == [row["index"] for row in anomalies]
    assert found.column("score").to_pylist() == [row["score"] for row in anomalies]


HOSTILE = ["../../etc/passwd", "/etc/passwd", "a/b", "C:\\x", "a\x00b", "a\nb", "", "x" * 300,
           "$(id)", "-rf", "!!!", "a@b", "a@-1", "a@1@2"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_no_file(client: TestClient, name: str) -> None:
    rows = {"data": [[1.0, 2.0], [2.0, 1.0]]}
    for path, body in (
        ("fit", {"model": name, **rows}),
        ("score", {"model": name, **rows}),
        ("detect", {"model": name, **rows}),
        ("save", {"model": name}),
        ("load", {"model": name}),
        ("stream", {"model": name, **rows}),
        ("models/rows/rename", {"name": name}),
        ("models/rows/alias", {"alias": name}),
    ):
        reply = client.post(f"/v1/anomaly/{path}", json=body)
        assert reply.status_code in (400, 404), path
        assert reply.json()["error"]["code"] in ("invalid_value", "model_not_found")
    quoted = quote(name, safe="")
    for path in (f"models/{quoted}", f"jobs/{quoted}", f"stream/{quoted}"):
        assert client.delete(f"/v1/anomaly/{path}").status_code in (404, 405), path
        assert client.get(f"/v1/anomaly/{path}").status_code == 404


# --- fits that take their time ----------------------------------------------------------------


def slow_body(name: str, **fields: Any) -> dict[str, Any]:
    return {"model": name, "backend": "one_class_svm", "data": SLOW.tolist(), **fields}


def test_a_streamed_fit_says_how_it_goes(client: TestClient) -> None:
    body = {"model": "events", "data": DATA, "backend": "ecod", "stream": True}
    reply = client.post("/v1/anomaly/fit", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    parsed = [json.loads(event) for event in events[:-1]]
    assert parsed[0] == {"object": "fit_progress", "stage": "started", "elapsed_ms": 0.0}
    assert parsed[-1]["object"] == "fit_result"
    assert parsed[-1]["version"] == 1
    bad = client.post("/v1/anomaly/fit", json={**body, "data": [[1.0]]})
    assert "at least 2 rows" in bad.text
    assert "[DONE]" not in bad.text


def test_a_background_fit_is_polled_and_cancelled(client: TestClient) -> None:
    reply = client.post(
        "/v1/anomaly/fit",
        json={"model": "job", "data": DATA, "backend": "ecod", "background": True},
    )
    assert reply.status_code == 202
    job = reply.json()
    assert reply.headers["location"] == f"/v1/anomaly/jobs/{job['id']}"
    done = ended(client, job["id"])
    assert done["status"] == "succeeded"
    assert done["result"]["version"] == 1
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]
    before = scores(client, "job")

    slow = client.post("/v1/anomaly/fit", json=slow_body("job", background=True)).json()
    assert scores(client, "job") == before, "a fit keeps no score waiting"
    listed = [entry["id"] for entry in client.get("/v1/anomaly/jobs").json()["data"]]
    assert listed[:2] == [slow["id"], job["id"]]
    cancelled = client.delete(f"/v1/anomaly/jobs/{slow['id']}").json()
    assert cancelled["status"] == "cancelled"
    assert ended(client, slow["id"])["status"] == "cancelled"
    assert client.get("/v1/anomaly/models/job").json()["version"] == 1

    bad = client.post("/v1/anomaly/fit", json={"model": "job", "data": [[1.0]], "background": True})
    failed = ended(client, bad.json()["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "invalid_value"
    for path in ("fit_" + "0" * 24, "..%2F..", "x"):
        assert client.get(f"/v1/anomaly/jobs/{path}").status_code == 404
    both = {"model": "job", "data": DATA, "stream": True, "background": True}
    assert client.post("/v1/anomaly/fit", json=both).status_code == 400


def ended(client: TestClient, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while True:
        job: dict[str, Any] = client.get(f"/v1/anomaly/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_fit_score_and_delete_of_one_name_at_once(client: TestClient) -> None:
    """Nothing but answers of whole versions, 404 and 429."""
    statuses: set[int] = set()
    found: list[tuple[float, ...]] = []
    few = DATA[:40]
    tables = [few, (ROWS[:40] * 3).tolist()]
    valid = set()
    for data in tables:
        fit(client, "shared", data)
        valid.add(tuple(scores(client, "shared", few[:3])))

    def repeat(number: int) -> None:
        for turn in range(6):
            if number == 0:
                body = {"model": "shared", "data": tables[turn % 2], "backend": "ecod",
                        "contamination": 0.05}  # fmt: skip
                statuses.add(client.post("/v1/anomaly/fit", json=body).status_code)
            elif number == 1:
                statuses.add(client.delete("/v1/anomaly/models/shared").status_code)
                time.sleep(0.05)
            else:
                body = {"model": "shared", "data": few[:3]}
                reply = client.post("/v1/anomaly/score", json=body)
                statuses.add(reply.status_code)
                if reply.status_code == 200:
                    found.append(tuple(row["raw_score"] for row in reply.json()["data"]))

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses <= {200, 404, 429}
    assert set(found) <= valid


def test_concurrent_single_points_are_few_calls(served: tuple[TestClient, LocalReplicas]) -> None:
    client, replicas = served
    fit(client, "hot")
    expected = scores(client, "hot")
    replicas.calls.clear()
    answers: dict[int, float] = {}
    barrier = threading.Barrier(32)

    def one(index: int) -> None:
        barrier.wait()
        [answers[index]] = scores(client, "hot", [DATA[index]])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(32)] == expected[:32], "bit for bit"
    calls = [args[1] for method, args in replicas.calls if method == "score"]
    assert sum(map(len, calls)) == 32
    assert len(calls) < 32


# --- streams and series -----------------------------------------------------------------------


def feed(client: TestClient, data: Any, model: str = "flow", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "data": data, "min_samples": 20, "window_size": 50, **fields}
    reply = client.post("/v1/anomaly/stream", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_a_stream_collects_then_judges(client: TestClient) -> None:
    first = feed(client, NAMED[0], rolling_windows=[3], include_lags=True)
    assert (first["status"], first["samples_until_ready"]) == ("collecting", 19)
    assert first["results"] == [
        {"index": 0, "score": None, "is_anomaly": False, "raw_score": None,
         "samples_until_ready": 19}
    ]  # fmt: skip
    feed(client, NAMED[1:25])
    last = feed(client, dict.fromkeys(NAMES, 500.0))
    assert (last["status"], last["model_version"], last["samples_collected"]) == ("ready", 1, 26)
    assert last["results"][0]["is_anomaly"] is True
    detector = client.get("/v1/anomaly/stream/flow").json()
    assert detector["settings"]["rolling_windows"] == [3]
    assert detector["settings"]["lag_periods"] == [1]
    listed = client.get("/v1/anomaly/stream/detectors").json()["data"]
    assert [entry["id"] for entry in listed] == ["flow"]
    assert "flow" not in [m["id"] for m in client.get("/v1/anomaly/models").json()["data"]]
    other = client.post("/v1/anomaly/stream", json={"model": "flow", "data": NAMED[0],
                                                    "window_size": 60})  # fmt: skip
    assert (other.status_code, other.json()["error"]["param"]) == (400, "window_size")
    assert client.post("/v1/anomaly/stream/flow/reset").json()["samples_collected"] == 0
    assert client.delete("/v1/anomaly/stream/flow").json()["deleted"] is True
    for method, path in (("GET", "flow"), ("DELETE", "flow"), ("POST", "flow/reset")):
        assert client.request(method, f"/v1/anomaly/stream/{path}").status_code == 404


@pytest.mark.parametrize(
    ("data", "samples"),
    [([1.0, 2.0], 1), ([[1.0, 2.0], [3.0, 4.0]], 2), ([{"a": 1.0}, {"a": 2.0}], 2), ([1, "x"], 1)],
    ids=str,
)
def test_one_point_or_several(client: TestClient, data: Any, samples: int) -> None:
    name = f"shape{len(json.dumps(data))}"
    assert feed(client, data, name)["samples_collected"] == samples
    assert client.delete(f"/v1/anomaly/stream/{name}").status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"data": []},
        {"data": {}},
        {"data": [[]]},
        {"data": [None]},
        {"data": [1.0, 10**400]},
        {"data": [["n/a", 1.0], [1.0, 1.0]]},
        {"data": [1.0], "min_samples": 9},
        {"data": [1.0], "window_size": 49},
        {"data": [1.0], "min_samples": 100, "window_size": 60},
        {"data": [1.0], "rolling_windows": [0]},
        {"data": [1.0], "model": "../x"},
        {"data": [1.0], "backend": "nope", "model": "bad"},
    ],
    ids=str,
)
def test_bad_points_are_refused(client: TestClient, fields: dict[str, Any]) -> None:
    reply = client.post("/v1/anomaly/stream", json={"model": "refused", **fields})
    assert reply.status_code == 400
    assert client.get("/v1/anomaly/stream/refused").status_code == 404


WAVE = (10 * np.sin(2 * np.pi * np.arange(240) / 24)).tolist()
AZURE = "/anomalydetector/v1.1/timeseries"


def test_a_series_is_judged_by_its_season(client: TestClient) -> None:
    values = [*WAVE]
    values[100] += 9
    reply = client.post("/v1/anomaly/timeseries", json={"series": values}).json()
    assert (reply["period"], reply["detector"]) == (24, "auto")
    assert reply["summary"] == {"total_points": 240, "anomaly_count": 1, "anomaly_rate": 1 / 240}
    point = reply["data"][100]
    assert point["is_anomaly"] is True
    assert point["lower"] <= point["expected"] <= point["upper"] < point["value"]
    bad = client.post("/v1/anomaly/timeseries", json={"series": values[:5]})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "series")


def test_azures_clients_find_their_routes(client: TestClient) -> None:
    values = [*WAVE]
    values[100] -= 9
    series = [
        {"timestamp": f"2026-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z", "value": value}
        for i, value in enumerate(values)
    ]
    body = {"series": series, "granularity": "hourly", "sensitivity": 90, "maxAnomalyRatio": 0.2}
    entire = client.post(f"{AZURE}/entire/detect", json=body).json()
    assert entire["period"] == 24
    assert [i for i, flag in enumerate(entire["isAnomaly"]) if flag] == [100]
    assert entire["isNegativeAnomaly"][100] is True
    assert entire["isPositiveAnomaly"][100] is False
    assert len(entire["expectedValues"]) == len(entire["severity"]) == 240
    assert min(entire["upperMargins"]) > 0
    last = client.post(f"{AZURE}/last/detect", json={**body, "series": series[:101]}).json()
    assert (last["isAnomaly"], last["isNegativeAnomaly"]) == (True, True)
    assert last["suggestedWindow"] == 97
    steps = [{"value": 1.0 + (i >= 50) * 9 + (i % 3) * 0.1} for i in range(100)]
    change = client.post(f"{AZURE}/changepoint/detect", json={"series": steps}).json()
    [index] = [i for i, flag in enumerate(change["isChangePoint"]) if flag]
    assert abs(index - 50) <= 1
    assert change["confidenceScores"][index] > 0.5
    gap = client.post(f"{AZURE}/entire/detect", json={"series": series[:50] + series[51:]})
    assert (gap.status_code, gap.json()["error"]["param"]) == (400, "series.50.timestamp")
    late = client.post(f"{AZURE}/entire/detect", json={"series": series[::-1]})
    assert late.json()["error"]["param"] == "series.1.timestamp"


@pytest.mark.parametrize(
    ("hours", "param"),
    [
        ([0, None, None, 1, 2, 4, 5], "series.5.timestamp"),
        ([None, 0, 1, 3, None, 2, 3], "series.5.timestamp"),
        ([0, 1, None, 1, 2, 3, 4], "series.3.timestamp"),
        ([0, 1, 4, 5, None, 4, 5], "series.5.timestamp"),
        ([0, 1, None, 2, None, 3, 4], None),
    ],
    ids=str,
)
def test_a_wrong_time_is_named_by_its_place_in_the_series(
    client: TestClient, hours: list[int | None], param: str | None
) -> None:
    """Points without a time count too, and times that go down are wrong before any gap is."""
    series: list[dict[str, Any]] = [{"value": float(i % 3)} for i in range(len(hours))]
    for point, hour in zip(series, hours, strict=True):
        if hour is not None:
            point["timestamp"] = f"2026-01-31T{hour:02d}:00:00Z"
    series += [{"value": float(i % 3)} for i in range(30)]
    reply = client.post(f"{AZURE}/entire/detect", json={"series": series})
    assert reply.status_code == (200 if param is None else 400), reply.text
    assert param is None or reply.json()["error"]["param"] == param


def test_the_shortest_step_of_a_series_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counted(steps: Any, **options: Any) -> Any:
        given = list(steps)
        looked.append(len(given))
        return min(given, **options)

    monkeypatch.setattr(anomaly_series, "min", counted, raising=False)
    times = [f"2026-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z" for i in range(240)]
    anomaly_series._check_times(
        [anomaly_series.SeriesPoint(timestamp=time, value=1.0) for time in times]
    )
    assert looked == [239]
