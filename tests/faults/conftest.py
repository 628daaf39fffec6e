"""One server for all tests of this folder: the launcher, the real graph, weightless models that
fail when they are asked to (models/toy/faults.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.conftest import RunningServer, started
from tests.integration.conftest import write_config as shipped_config

STUCK_S = 4
LOAD_S = 40
MAX_WAITING = 24
"""More than the tests send at once that must all be served."""
BACKGROUND_TASKS = ("embedding", "rerank", "classification", "ocr", "anomaly")
FAULTY_LOADS = ("raise", "hang", "segv", "oom")
INFER = {"infer": True}


def model(model_id: str, task: str, **options: Any) -> dict[str, Any]:
    return {
        "id": model_id,
        "task": task,
        "engine": "toy",
        "source": {"kind": "builtin"},
        "engine_options": options,
    }


def models(broken: Path) -> list[dict[str, Any]]:
    """One good model per task, and embedding models that do not load while `broken` exists."""
    return [
        model("chat", "generation", step_seconds=0.01, max_sequences=8, faults=INFER),
        model("narrow", "generation", step_seconds=0.01, max_sequences=1, max_queued=2),
        model("texts", "embedding", faults=INFER),
        model("pairs", "rerank", faults=INFER),
        model("labels", "classification", faults=INFER),
        model("entities", "classification", head="token", faults=INFER),
        model("pages", "ocr", faults=INFER),
        {
            "id": "detectors",
            "task": "anomaly",
            "engine": "detectors",
            "source": {"kind": "builtin"},
        },
        *(
            model(f"load-{fault}", "embedding", faults={"load": fault, "file": str(broken)})
            for fault in FAULTY_LOADS
        ),
    ]


def write_config(folder: Path) -> Path:
    path = shipped_config(folder, {})
    document = yaml.safe_load(path.read_text())
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"models": models(folder / "broken")}))
    args = document["applications"][0]["args"]
    args["catalog"] = str(catalog)
    args["coalescing"] = {"max_waiting": MAX_WAITING}
    args["deadlines"] = {"stuck_s": STUCK_S, "load_s": LOAD_S}
    for task in BACKGROUND_TASKS:  # on a busy machine what steps aside may look like a hang
        args[task]["niceness"] = 0
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file exists, some models do not load."""
    path = tmp_path_factory.mktemp("faults") / "broken"
    path.touch()
    return path


@pytest.fixture(scope="package")
def server(broken: Path) -> Iterator[RunningServer]:
    with started(write_config(broken.parent)) as running:
        yield running


def error_of(reply: httpx.Response) -> str:
    """The code of an error in our wire format."""
    assert reply.headers["content-type"] == "application/json", reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    code: str = error["code"]
    return code
