"""What reaches the front from strangers: answered by us in JSON or cut off, and never passed on in
a way that a server behind could read differently."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.front import Fronted, Reply, fronted, received, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="HAProxy is for Linux")

HEADERS_S, IDLE_S = 1, 2
GET = b"GET / HTTP/1.1\r\nhost: here\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\n"

CUT_OFF: dict[str, bytes] = {
    "two lengths": POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a negative length": POST + b"content-length: -1\r\n\r\n",
    "a length that is none": POST + b"content-length: 3, 4\r\n\r\nabcd",
    "a bad chunk": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\ncontent-length: 3\r\n\r\nabc",
    "a hidden coding": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nhost : here\r\n\r\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nhost: here\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a path in the host": b"GET / HTTP/1.1\r\nhost: a/health?x=\r\n\r\n",
    "a user in the host": b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n",
    "two hosts": GET + b"host: there\r\n\r\n",
    "an authority that is not the host": b"GET http://there/ HTTP/1.1\r\nhost: here\r\n\r\n",
    "headers without an end": GET + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
    "garbage after a request": GET + b"\r\n" + POST + b"content-length: -1\r\n\r\n",
}
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "16 KB": (GET + b"x: " + b"a" * 16_384 + b"\r\n\r\n", 431, "headers_too_large"),
    "200 headers": (
        GET + b"".join(b"x%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        431,
        "headers_too_large",
    ),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_value"),
    "an empty host": (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", 400, "invalid_value"),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nhost: here\r\n\r\n", 400, "invalid_value"),
    "CONNECT": (b"CONNECT here:80 HTTP/1.1\r\nhost: here:80\r\n\r\n", 405, "method_not_allowed"),
    "TRACE": (b"TRACE / HTTP/1.1\r\nhost: here\r\n\r\n", 405, "method_not_allowed"),
    "a verb of its own": (b"BREW / HTTP/1.1\r\nhost: here\r\n\r\n", 405, "method_not_allowed"),
}
SERVES_OWN = ("/-/routes", "/-/healthz", "/%2d/routes", "//-/routes", "/-", "/%2D%2Froutes")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("f")
    with fronted(folder, HEADERS_TIMEOUT=f"{HEADERS_S}s", IDLE_TIMEOUT=f"{IDLE_S}s") as running:
        yield running


@pytest.fixture(autouse=True)
def alive_afterwards(front: Fronted) -> Iterator[None]:
    yield
    assert front.get("/health").status == 200


@pytest.mark.parametrize("name", CUT_OFF)
def test_what_cannot_be_read_is_cut_off(front: Fronted, name: str) -> None:
    begin = time.monotonic()
    answers = front.ask(CUT_OFF[name])
    assert [reply.status for reply in answers if reply.status >= 400] == []
    assert len(answers) == ("after a request" in name)
    assert time.monotonic() - begin < HEADERS_S + IDLE_S + 5


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_allowed_is_refused_in_our_words(front: Fronted, name: str) -> None:
    data, status, code = REFUSED[name]
    [reply] = front.ask(data)
    assert reply.status == status
    assert reply.error()["code"] == code
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("path", SERVES_OWN)
def test_routes_of_serve_are_not_there(front: Fronted, path: str) -> None:
    reply = front.get(path)
    assert reply.status == 404
    assert reply.error()["code"] == "not_found"


def test_a_length_beside_chunks_is_dropped_with_the_connection(front: Fronted) -> None:
    """What follows would be a second request to a server that counted the other way."""
    smuggled = POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + GET
    [reply] = front.ask(smuggled + b"\r\n")
    assert reply.status == 200
    seen = front.behind.seen[-1]
    assert (seen["content-length"], seen["transfer-encoding"]) == (None, "chunked")


def test_requests_in_a_row_are_answered_in_a_row(front: Fronted) -> None:
    row = request("GET", "/json/201") + request("GET", "/json/202", "connection: close")
    assert [reply.status for reply in front.ask(row)] == [201, 202]


def test_http_1_0_and_absolute_targets(front: Fronted) -> None:
    [old] = front.ask(b"GET /old HTTP/1.0\r\n\r\n")
    assert (old.status, front.behind.seen[-1]["host"]) == (200, "127.0.0.1")
    [absolute] = front.ask(
        b"GET HTTP://here/x?y HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
    )
    assert json.loads(absolute.body) == {"path": "/x?y"}


@pytest.mark.parametrize(
    "headers",
    [
        ("upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA"),
    ],
)
def test_nothing_is_upgraded(front: Fronted, headers: tuple[str, ...]) -> None:
    assert front.get("/", "connection: upgrade, http2-settings", *headers).status == 200
    seen = front.behind.seen[-1]
    assert (seen["upgrade"], seen["http2-settings"]) == (None, None)


def test_a_client_that_closes_its_half_is_gone(front: Fronted) -> None:
    assert front.ask(GET, half_close=True) == []
    assert [r.status for r in front.ask(request("GET", "/"), half_close=True)] in ([], [200])


def test_clients_switch_no_protection_off(front: Fronted) -> None:
    switches = [
        "X-Request-Timeout-Seconds: 0",
        "x-request-disconnect-disabled: ?1",
        "serve_multiplexed_model_id: a",
        "serve-multiplexed-model-id: a",
        "X-Session-Id: a",
        "x_session_id: a",
    ]
    front.get("/", *switches, "x-forwarded-for: 203.0.113.1", "authorization: Bearer k")
    seen = front.behind.seen[-1]
    assert not {line.partition(":")[0].lower() for line in switches} & {n.lower() for n in seen}
    assert seen.get_all("x-forwarded-for") == ["127.0.0.1"]
    assert seen["authorization"] == "Bearer k"


@pytest.mark.parametrize("good", ["abc", "a.b-c_D9", "a" * 64])
def test_ids_of_clients_are_kept(front: Fronted, good: str) -> None:
    reply = front.get("/", f"x-request-id: {good}")
    assert reply.headers.get_all("x-request-id") == [good]
    assert front.behind.seen[-1].get_all("x-request-id") == [good]


@pytest.mark.parametrize("bad", ["a\tb", "a b", "\x1b[31m", "a" * 65, "ä", "a,b", ""])
def test_ids_that_would_harm_a_log_are_replaced(front: Fronted, bad: str) -> None:
    reply = front.get("/", f"x-request-id: {bad}")
    [given] = front.behind.seen[-1].get_all("x-request-id", [])
    assert reply.headers.get_all("x-request-id") == [given]
    assert len(given) == 36


def test_two_ids_are_none(front: Fronted) -> None:
    front.get("/", "x-request-id: a", "x-request-id: b")
    [given] = front.behind.seen[-1].get_all("x-request-id", [])
    assert len(given) == 36


def test_half_headers_are_cut_off(front: Fronted) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(front.connect()) for _ in range(300)]
        for connection in slow:
            connection.sendall(GET)
        begin = time.monotonic()
        assert front.get("/health").status == 200
        assert {received(connection) for connection in slow} == {b""}
        assert time.monotonic() - begin < HEADERS_S + 10


def test_bodies_that_stop_are_cut_off(front: Fronted) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(front.connect()) for _ in range(100)]
        for connection in slow:
            connection.sendall(POST + b"content-length: 100\r\n\r\nx")
        begin = time.monotonic()
        for connection in slow:
            received(connection)
        assert time.monotonic() - begin < IDLE_S + 15


def test_an_address_has_so_many_connections(tmp_path: Path) -> None:
    with fronted(tmp_path, CLIENT_CONNECTIONS="5") as limited, ExitStack() as stack:
        held = [stack.enter_context(limited.connect()) for _ in range(5)]
        for connection in held:
            connection.sendall(request("GET", "/"))
            assert connection.recv(1 << 16)
        reply = limited.get("/")
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert reply.error()["code"] == "rate_limit_exceeded"
        more = [_opened(limited, stack) for _ in range(6)]
        assert more[-1] is None or _cut_off(more[-1])
        stack.close()
        assert _soon_200(limited)


def _opened(front: Fronted, stack: ExitStack) -> socket.socket | None:
    try:
        return stack.enter_context(front.connect())
    except OSError:  # accepted and reset
        return None


def _cut_off(connection: socket.socket) -> bool:
    try:
        connection.sendall(request("GET", "/"))
        return received(connection) == b""
    except OSError:
        return True


def _soon_200(front: Fronted) -> bool:
    """Once HAProxy has noticed that the others left."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(OSError):  # accepted and reset
            answers: list[Reply] = front.ask(request("GET", "/", "connection: close"))
            if answers and answers[0].status == 200:
                return True
    return False
