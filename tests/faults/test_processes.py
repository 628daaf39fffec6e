"""The processes around the replicas die or stop: what was not begun is answered all the same, or in
our words that it is worth trying again, and soon everything is as before."""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.faults.conftest import error_of
from tests.integration.conftest import RunningServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="HAProxy is for Linux")

EMBED = {"model": "texts", "input": "a"}
CHAT = {
    "model": "chat",
    "messages": [{"role": "user", "content": "a"}],
    "stream": True,
    "max_tokens": 4000,
    "ignore_eos": True,
}
INGRESS = "ray::ServeReplica:inference:Ingress"
CONTROLLER = "ray::ServeController"
SERVES_HAPROXY = "haproxy.cfg"
ITS_MANAGER = "ray::HAProxyManager"
OURS = "front.cfg"
PACE_S = 0.25
IN_A_ROW = 8
AT_ONCE = 16
"""Fewer than may wait for the model: nothing shall be refused because it takes long."""
PATIENCE_S = 180


def embed(server: RunningServer) -> httpx.Response:
    """On a connection of its own, as of a client that comes now."""
    return httpx.post(f"{server.url}/v1/embeddings", json=EMBED, timeout=PATIENCE_S)


def inject(server: RunningServer, process: str, number: signal.Signals) -> None:
    victims = server.running(process)
    assert victims, f"no process of {process}"
    for victim in victims:
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:  # the one before a reload
            continue


def answers_until_well(server: RunningServer) -> list[httpx.Response]:
    """Of a request every quarter of a second, all of them, until so many in a row were right."""
    end = time.monotonic() + PATIENCE_S
    asked: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while time.monotonic() < end and not _well(asked):
            if sum(not future.done() for future in asked) < AT_ONCE:
                asked.append(pool.submit(embed, server))
            time.sleep(PACE_S)
    return [future.result() for future in asked]


def _well(asked: list[Future[httpx.Response]]) -> bool:
    """Whether the last that are answered were answered right, and no older one still waits."""
    answered = [future for future in asked if future.done()]
    last = answered[-IN_A_ROW:]
    return (
        len(last) == IN_A_ROW
        and asked[: len(answered)] == answered
        and all(f.exception() is None and f.result().status_code == 200 for f in last)
    )


def assert_right_or_503(replies: list[httpx.Response]) -> None:
    for reply in replies:
        if reply.status_code != 200:
            assert reply.status_code == 503, reply.text
            assert error_of(reply) in {"server_unavailable", "engine_died", "model_loading"}
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.headers["x-request-id"]
    assert [reply.status_code for reply in replies[-IN_A_ROW:]] == [200] * IN_A_ROW


@pytest.mark.parametrize(
    ("process", "number"),
    [
        (SERVES_HAPROXY, signal.SIGSTOP),
        (ITS_MANAGER, signal.SIGKILL),
    ],
)
def test_what_a_request_passes_through(
    server: RunningServer, process: str, number: signal.Signals
) -> None:
    assert embed(server).status_code == 200
    inject(server, process, number)
    assert_right_or_503(answers_until_well(server))


def test_an_ingress_and_what_it_was_answering(server: RunningServer) -> None:
    begun = threading.Event()

    def stream() -> str:
        body = []
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S
        ) as reply:
            try:
                for piece in reply.iter_text():
                    body.append(piece)
                    begun.set()
            except (httpx.RemoteProtocolError, httpx.ReadError):
                body.append("<cut>")
        return "".join(body)

    with ThreadPoolExecutor() as pool:
        streaming = pool.submit(stream)
        assert begun.wait(PATIENCE_S)
        inject(server, INGRESS, signal.SIGKILL)
        assert_right_or_503(answers_until_well(server))
        assert streaming.result(PATIENCE_S).endswith("<cut>"), "never a silent normal end"


def test_a_controller_and_what_it_should_have_replaced(server: RunningServer) -> None:
    assert embed(server).status_code == 200
    inject(server, CONTROLLER, signal.SIGSTOP)
    assert embed(server).status_code == 200
    [replica] = server.replicas("Embedding")
    replica.kill()
    assert_right_or_503(answers_until_well(server))


def test_the_front_itself(server: RunningServer) -> None:
    """Nobody can answer for it, but it is back at once."""
    inject(server, OURS, signal.SIGKILL)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if embed(server).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(PACE_S)
    pytest.fail("the front did not come back")
