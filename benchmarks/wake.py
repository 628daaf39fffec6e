"""Waking from zero, and what is left after a model has gone.

    python benchmarks/wake.py [--rounds 3] [--cycles 20]

Wake: the first request to a task without replicas, until its answer, beside a plain Python process
that imports the same engine, loads the same model and answers one request. Memory: a model is
loaded and unloaded over and over; the proportional set size of all processes after the last times
beside that after the first ones. A weightless model is woken too: that is what Ray's own start of a
replica takes, with nothing to import and nothing to load. Each replica finds the process that waits
for it (deployments/spare_process.py).
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
from harness import ROOT, Goal, Report, Rounds, Server, parser, quick, report, serving, spread
from PIL import Image, ImageDraw

TASKS = ("generation", "embedding", "rerank", "classification", "ocr", "anomaly")
IDLE_S = 11.0
"""Serve looks back for ten seconds before it begins to count."""
SECONDS, MEMORY = "seconds to the first answer", "PSS MB"
WOKEN, BARE = "woken from zero", "plain process"
ZERO_S = 90.0
SPARE_S = 8.0
"""After so long another process waits for the next replica; it starts beside neither side."""
SETTLE_S = 1.0
"""A model that is said to be unloaded is freed in a thread."""
WARM_CYCLES = 3
TOY = {
    "id": "weightless",
    "task": "embedding",
    "engine": "toy",
    "source": {"kind": "builtin"},
}
UNLOAD_S = 30.0


def picture() -> str:
    image, file = Image.new("RGB", (200, 60), "white"), io.BytesIO()
    ImageDraw.Draw(image).text((20, 20), "hello", fill="black")
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def first_models(client: httpx.Client) -> dict[str, str]:
    """Task -> id of its first model."""
    found: dict[str, str] = {}
    for model in client.get("/v1/models").json()["data"]:
        found.setdefault(model["task"], model["id"])
    return found


def requests(client: httpx.Client) -> dict[str, Callable[[], httpx.Response]]:
    """One small request per task."""
    models = first_models(client)

    def post(path: str, task: str, body: dict[str, Any]) -> Callable[[], httpx.Response]:
        return lambda: client.post(path, json={"model": models[task], **body})

    return {
        "generation": post("/v1/completions", "generation", {"prompt": "Hello", "max_tokens": 1}),
        "embedding": post("/v1/embeddings", "embedding", {"input": "hello"}),
        "rerank": post("/v1/rerank", "rerank", {"query": "hello", "documents": ["world"]}),
        "classification": lambda: client.get("/v1/classifier/models"),
        "ocr": post("/v1/ocr", "ocr", {"images": [picture()]}),
        "anomaly": lambda: client.get("/v1/anomaly/backends"),
    }


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def answered(call: Callable[[], httpx.Response]) -> None:
    call().raise_for_status()


def bare(task: str) -> None:
    script = ROOT / "benchmarks" / "peers" / "bare_load.py"
    subprocess.run([sys.executable, script, task], check=True, stdout=subprocess.DEVNULL)


def await_zero(client: httpx.Client) -> None:
    """Returns when no task has a replica."""
    end = time.monotonic() + ZERO_S
    while time.monotonic() < end:
        states = client.get("/ready").raise_for_status().json()["deployments"]
        if not any(s["replicas"] + s["starting"] for n, s in states.items() if n != "Ingress"):
            return
        time.sleep(0.5)
    raise SystemExit("the tasks do not go to zero")


def wakes(found: Report, client: httpx.Client, rounds: int) -> None:
    measured = {task: Rounds() for task in TASKS}
    calls = requests(client)
    weightless = partial(client.post, "/v1/embeddings", json={"model": TOY["id"], "input": "hello"})
    floors = []
    for _ in range(rounds):
        await_zero(client)
        floors.append(timed(partial(answered, weightless)))
        time.sleep(SPARE_S)
        await_zero(client)
        for task in TASKS:
            with measured[task].turn():
                measured[task].add(WOKEN, {SECONDS: timed(partial(answered, calls[task]))})
                time.sleep(SPARE_S)
                measured[task].add(BARE, {SECONDS: timed(partial(bare, task))})
    found.note("waking a weightless model, seconds", spread(floors))
    for task, values in measured.items():
        found.compare(task, values, WOKEN, {(BARE, SECONDS): Goal(1.3, at_most=True)})


def cycles(found: Report, server: Server, client: httpx.Client, count: int) -> None:
    """Memory after unloading, the last cycle's to the first's."""
    models = first_models(client)
    for task in ("embedding", "generation"):
        body = {"model": models[task]}
        client.post("/v1/models/load", json=body).raise_for_status()
        time.sleep(SPARE_S)
        memory = []
        for _ in range(count + WARM_CYCLES):
            client.post("/v1/models/load", json=body).raise_for_status()
            client.post("/v1/models/unload", json=body).raise_for_status()
            await_unloaded(client, models[task])
            time.sleep(SETTLE_S)
            memory.append(server.pss_bytes() / 1e6)
        measured = Rounds()
        for last, first in zip(memory[-WARM_CYCLES:], memory[:WARM_CYCLES], strict=True):
            measured.add("after the last", {MEMORY: last})
            measured.add("after the first", {MEMORY: first})
        goal = {("after the first", MEMORY): Goal(1.02, at_most=True)}
        found.compare(f"{task}, {count} loads and unloads", measured, "after the last", goal)


def await_unloaded(client: httpx.Client, model_id: str) -> None:
    end = time.monotonic() + UNLOAD_S
    while client.get(f"/v1/models/{model_id}").json()["state"] != "unloaded":
        if time.monotonic() > end:
            raise SystemExit(f"{model_id} is not unloaded")
        time.sleep(0.1)


def main() -> None:
    arguments = parser(__doc__ or "", rounds=3)
    arguments.add_argument("--cycles", type=int, default=5 if quick() else 20)
    options = arguments.parse_args()
    found = report("Waking from zero, to a plain process that loads the same model")
    short: dict[str, Any] = {task: {"idle_timeout_s": IDLE_S} for task in TASKS}
    with (
        serving(short | {"models": [TOY]}) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        time.sleep(SPARE_S)
        wakes(found, client, 1 if quick() else options.rounds)
    with serving() as server, httpx.Client(base_url=server.url, timeout=120) as client:
        cycles(found, server, client, options.cycles)
    found.write()


if __name__ == "__main__":
    main()
