"""Models that do not load: their requests are told so, other models of the task are not touched."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.conftest import error_of
from tests.integration.conftest import RunningServer
from tests.processes import ended

AGAIN_S = 180


def embed(server: RunningServer, model: str) -> httpx.Response:
    return server.client.post("/v1/embeddings", json={"model": model, "input": "a text"})


class InBackground(threading.Thread):
    """One request whose answer takes long."""

    def __init__(self, server: RunningServer, model: str) -> None:
        super().__init__(daemon=True)
        self._server, self._model = server, model
        self.replies: list[httpx.Response] = []

    def run(self) -> None:
        self.replies.append(embed(self._server, self._model))

    def reply(self) -> httpx.Response:
        self.join(AGAIN_S)
        return self.replies[0]


def until_loaded(server: RunningServer, model: str) -> dict[str, Any]:
    """The answer of a model that is tried again after its back-off."""
    deadline = time.monotonic() + AGAIN_S
    while time.monotonic() < deadline:
        reply = embed(server, model)
        if reply.status_code == 200:
            body: dict[str, Any] = reply.json()
            return body
        assert reply.status_code in {500, 503}, reply.text
        time.sleep(min(2.0, float(reply.headers.get("retry-after", 1))))
    pytest.fail(f"{model} does not load: {reply.text}")


def is_left_alone(server: RunningServer, model: str, good: httpx.Response) -> bool:
    """Whether a model that ends its process is refused while the replica goes on."""
    assert embed(server, "texts").json()["data"] == good.json()["data"]
    [replica] = server.replicas("Embedding")
    refused = embed(server, model)
    assert (refused.status_code, error_of(refused)) == (503, "model_load_failed")
    assert int(refused.headers["retry-after"]) >= 1
    return not ended(replica)


def test_loads_fail_each_in_their_way_until_the_cause_is_gone(
    server: RunningServer, broken: Path
) -> None:
    good = embed(server, "texts")
    hanging = InBackground(server, "load-hang")
    hanging.start()

    raising = embed(server, "load-raise")
    assert (raising.status_code, error_of(raising)) == (503, "model_load_failed")
    assert "load-raise" in raising.json()["error"]["message"]
    assert str(broken) not in raising.text
    assert int(raising.headers["retry-after"]) >= 1
    exhausted = embed(server, "load-oom")
    assert (exhausted.status_code, error_of(exhausted)) == (503, "out_of_memory")
    assert embed(server, "texts").json()["data"] == good.json()["data"]

    late = hanging.reply()
    assert (late.status_code, error_of(late)) == (503, "model_loading")
    assert int(late.headers["retry-after"]) >= 1

    # The loader ends its process: two tries, one more, and then the model is left alone.
    crashing = [embed(server, "load-segv") for _ in range(3)]
    codes = [(reply.status_code, error_of(reply)) for reply in crashing]
    assert codes == [
        (500, "engine_died"),
        (503, "model_load_failed"),
        (503, "model_load_failed"),
    ]
    # Whoever comes after the pause ends another replica, and the next pause is twice as long.
    assert any(is_left_alone(server, "load-segv", good) for _ in range(4))

    broken.unlink()
    for model in ("load-raise", "load-oom", "load-segv", "load-hang"):
        assert until_loaded(server, model)["data"] == good.json()["data"]
