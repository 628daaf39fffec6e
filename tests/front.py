"""A front before a server that stands in for Serve, and raw requests to it."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

from launcher.edge import haproxy_binary
from launcher.front import Front
from tests.ports import quiet_port

HOST = "127.0.0.1"
PATIENCE_S = 60


class Behind(ThreadingHTTPServer):
    """Answers /text/<status> in plain text, /json/<status> in JSON, /cut not at all; /held and
    /stream wait for `release`. `seen` has the headers of every request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__((HOST, port), Answering)
        self.seen: list[http.client.HTTPMessage] = []
        self.bodies: list[bytes] = []
        self.begun = threading.Event()
        self.left = threading.Event()
        self.release = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave: nothing to report."""


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Behind

    def do_GET(self) -> None:
        self.server.seen.append(self.headers)
        self.server.begun.set()
        kind, _, status = self.path.strip("/").partition("/")
        if kind == "cut":
            self.close_connection = True
        elif kind == "stream":
            self._stream()
        elif kind == "until-left":
            with suppress(ConnectionResetError):
                self.connection.recv(1)
            self.server.left.set()
        else:
            if kind == "held":
                self.server.release.wait(PATIENCE_S)
            self._answer(int(status or 200), "text/plain" if kind == "text" else "application/json")

    def do_POST(self) -> None:
        if "content-length" in self.headers:
            self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        else:
            while size := int(self.rfile.readline(), 16):
                self.server.bodies.append(self.rfile.read(size + 2)[:-2])
            self.rfile.readline()
        self.do_GET()

    def _answer(self, status: int, kind: str) -> None:
        body = json.dumps({"path": self.path}).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\none\r\n")
        self.server.release.wait(PATIENCE_S)
        self.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def error(self) -> dict[str, Any]:
        """The error in our wire format."""
        assert self.headers["content-type"] == "application/json", self
        assert self.headers["x-request-id"], self
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@dataclass
class Fronted:
    """A front that is open, and what is behind it."""

    front: Front
    port: int
    behind: Behind = field(init=False)

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), PATIENCE_S)

    def ask(self, data: bytes, half_close: bool = False) -> list[Reply]:
        """All answers until the connection is closed by the other side."""
        with self.connect() as connection:
            with suppress(ConnectionResetError, BrokenPipeError):  # closed before all was sent
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            return replies(received(connection))

    def get(self, path: str, *headers: str) -> Reply:
        [reply] = self.ask(request("GET", path, "connection: close", *headers))
        return reply


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: here", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


class _Kept(io.BytesIO):
    def makefile(self, mode: str) -> _Kept:
        del mode
        return self

    def close(self) -> None:
        """The next answer follows."""


def replies(data: bytes) -> list[Reply]:
    """The answers in what a connection has sent."""
    stream, found = _Kept(data), []
    while stream.tell() < len(data):
        response = http.client.HTTPResponse(stream)  # type: ignore[arg-type]
        response.begin()
        found.append(Reply(response.status, response.headers, response.read()))
    return found


@contextmanager
def behind_on(port: int) -> Iterator[Behind]:
    """What stands in for Serve, listening."""
    behind = Behind(port)
    thread = threading.Thread(target=behind.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield behind
    finally:
        behind.release.set()
        behind.shutdown()
        thread.join()
        behind.server_close()


@contextmanager
def front_before(server_port: int, folder: Path, **variables: str) -> Iterator[Fronted]:
    """An open front with other limits than front.cfg's (FRONT_... without its prefix)."""
    port = quiet_port()
    front = Front(haproxy_binary(), HOST, port, server_port, folder)
    environment = {f"FRONT_{name}": value for name, value in variables.items()}
    with mock.patch.dict(os.environ, environment):
        front.start()
    try:
        front.open()
        yield Fronted(front, port)
    finally:
        front.stop()


@contextmanager
def fronted(folder: Path, **variables: str) -> Iterator[Fronted]:
    """The same with a server behind it."""
    port = quiet_port()
    with behind_on(port) as behind, front_before(port, folder, **variables) as running:
        running.behind = behind
        yield running
