"""The front between clients and Serve: whose errors they see, what they wait for, how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from launcher import front as front_module
from launcher.edge import haproxy_binary
from launcher.errors import LaunchError
from launcher.front import Front
from launcher.ports import free_ports
from tests.front import (
    HOST,
    PATIENCE_S,
    Fronted,
    behind_on,
    front_before,
    fronted,
    request,
    until,
)
from tests.ports import quiet_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="HAProxy is for Linux")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Fronted]:
    with fronted(tmp_path) as running:
        yield running


def kept(running: Fronted) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(HOST, running.port, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/text/404", 503, "server_unavailable"),
        ("/text/500", 503, "server_unavailable"),
        ("/text/503", 503, "server_unavailable"),
        ("/text/400", 400, "invalid_value"),
        ("/cut", 503, "server_unavailable"),
    ],
)
def test_what_serve_says_in_plain_text_becomes_our_error(
    running: Fronted, path: str, status: int, code: str
) -> None:
    reply = running.get(path)
    assert reply.status == status
    assert reply.error()["code"] == code
    assert (reply.headers["retry-after"] == "2") is (status == 503)


@pytest.mark.parametrize("status", [404, 429, 500, 503, 504, 507])
def test_the_applications_own_errors_are_passed_on(running: Fronted, status: int) -> None:
    reply = running.get(f"/json/{status}")
    assert reply.status == status
    assert json.loads(reply.body) == {"path": f"/json/{status}"}
    assert reply.headers["retry-after"] is None
    assert reply.headers["server"] is None


def test_requests_wait_while_serves_proxy_starts_again(tmp_path: Path) -> None:
    port = quiet_port()
    with front_before(port, tmp_path) as running, ThreadPoolExecutor() as pool:
        waiting = pool.submit(running.get, "/")
        until(running.front.in_flight)
        with behind_on(port):
            assert waiting.result(PATIENCE_S).status == 200


def test_but_not_for_ever(tmp_path: Path) -> None:
    port = quiet_port()
    with front_before(port, tmp_path, WAIT_TRIES="1") as running:
        reply = running.get("/")
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert reply.error()["code"] == "server_unavailable"


def test_streams_arrive_piece_by_piece(running: Fronted) -> None:
    with closing(kept(running)) as connection:
        connection.request("GET", "/stream")
        response = connection.getresponse()
        assert response.read(3) == b"one"
        running.behind.release.set()
        assert response.read() == b"two"


def test_bodies_arrive_whole(running: Fronted) -> None:
    body = os.urandom(1 << 20)
    with closing(kept(running)) as connection:
        connection.request("POST", "/", body)
        assert connection.getresponse().read()
        connection.request("POST", "/", iter([body[:100], body[100:]]), encode_chunked=True)
        assert connection.getresponse().read()
    received = running.behind.bodies
    assert (received[0], b"".join(received[1:])) == (body, body)


def test_a_client_that_leaves_is_gone_behind(running: Fronted) -> None:
    with running.connect() as connection:
        connection.sendall(request("GET", "/until-left"))
        assert running.behind.begun.wait(PATIENCE_S)
    assert running.behind.left.wait(PATIENCE_S)


def test_shut_it_answers_503_and_lets_the_others_end(running: Fronted) -> None:
    with closing(kept(running)) as connection, ThreadPoolExecutor() as pool:
        connection.request("GET", "/")
        assert connection.getresponse().read()
        under_way = pool.submit(running.get, "/held")
        until(running.front.in_flight)
        running.front.shut()
        connection.request("GET", "/ready")
        refused = connection.getresponse()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert refused.headers["retry-after"] == "2"
        assert json.loads(refused.read())["error"]["code"] == "server_unavailable"
        assert running.get("/health").status == 503
        assert running.front.in_flight() == 1
        running.behind.release.set()
        assert under_way.result(PATIENCE_S).status == 200
    assert running.front.in_flight() == 0
    running.front.open()
    assert running.get("/").status == 200


def processes_of(running: Fronted) -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if p.name() == "haproxy"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_lost_is_started_again(
    running: Fronted, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not running.front.revive()
    monkeypatch.setattr(front_module, "ANSWER_S", 0.5)
    [process] = processes_of(running)
    process.send_signal(number)
    if number == signal.SIGKILL:
        until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert running.front.in_flight() == 0
    assert running.front.revive()
    assert running.get("/").status == 200


def test_one_that_is_gone_is_told_when_it_is_back(running: Fronted) -> None:
    [process] = processes_of(running)
    process.kill()
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    running.front.shut()
    running.front.revive()
    assert running.get("/").status == 503
    running.front.stop()
    running.front.open()
    running.front.revive()
    assert running.get("/").status == 200


def test_nothing_reaches_serve_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_port, port = free_ports(2)
    front = Front(haproxy_binary(), HOST, port, server_port, tmp_path)
    running = Fronted(front, port)
    with behind_on(server_port) as behind:
        try:
            with monkeypatch.context() as patch:  # before its owner has said anything
                patch.setattr(Front, "_obeys", lambda self: True)
                front.start()
            until(lambda: refuses_politely(running))
            assert not behind.seen
            front.open()
            assert running.get("/json/200").status == 200
        finally:
            front.stop()


def refuses_politely(running: Fronted) -> bool:
    """Whether it listens, and says that the server is not there yet."""
    try:
        return running.get("/json/200").error()["code"] == "server_unavailable"
    except OSError:
        return False


def test_its_own_socket_is_for_its_owner(tmp_path: Path) -> None:
    with fronted(tmp_path):
        assert (tmp_path / "front.sock").stat().st_mode & 0o777 == 0o600


def test_it_says_why_it_does_not_run(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        front = Front(haproxy_binary(), HOST, taken.getsockname()[1], 1, tmp_path)
        with pytest.raises(LaunchError, match=r"HAProxy does not run: .*Address already in use"):
            front.start()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_where_it_listens(host: str, tmp_path: Path) -> None:
    port = quiet_port()
    front = Front(haproxy_binary(), host, port, 1, tmp_path)
    front.start()
    try:
        with socket.create_connection((host, port), PATIENCE_S):
            pass
    finally:
        front.stop()
