"""Waiting for the server, against one that never becomes ready; and asking a real HTTP server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from launcher import launch as launch_module
from launcher.errors import LaunchError
from launcher.launch import PROBES, Launch
from launcher.ports import free_ports
from launcher.probe import HttpProbe, url_of

HOST = "127.0.0.1"


class Answers(BaseHTTPRequestHandler):
    """A server whose models are listed and whose health depends on its `healthy`."""

    healthy = True

    def do_GET(self) -> None:
        known = {"/health": b"{}", "/v1/models": b'{"data": [{"id": "m", "task": "embedding"}]}'}
        found = self.path in known and (self.healthy or self.path != "/health")
        self.send_response(200 if found else 503)
        self.end_headers()
        self.wfile.write(known.get(self.path, b"") if found else b"no")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def answering() -> Iterator[HttpProbe]:
    server = HTTPServer((HOST, 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield HttpProbe(HOST, server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def silent() -> HttpProbe:
    return HttpProbe(HOST, free_ports(1)[0])


class Server:
    """Stands in for Ray: starts and stops at once, fails when told to."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self.stopped = False

    def start(self) -> None:
        return

    def failure(self) -> str | None:
        return self.reason

    def stop(self) -> bool:
        self.stopped = True
        return False


class Childless:
    """Stands in for the processes: there are none."""

    def __init__(self) -> None:
        self.graces: list[float] = []

    def look(self) -> None:
        return

    def lost(self) -> list[str]:
        return []

    def end_stopped(self) -> None:
        return

    def end(self, grace_s: float) -> None:
        self.graces.append(grace_s)


class Front:
    """Stands in for HAProxy: a number of requests under way, each of which ends when asked for."""

    def __init__(self, under_way: int = 0) -> None:
        self.under_way = under_way
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")

    def open(self) -> None:
        self.events.append("open")

    def shut(self) -> None:
        self.events.append(f"shut with {self.under_way}")

    def revive(self) -> bool:
        return False

    def in_flight(self) -> int:
        self.under_way -= self.under_way > 0
        return self.under_way

    def stop(self) -> None:
        self.events.append(f"stop with {self.under_way}")


@pytest.fixture(autouse=True)
def handlers_untouched_and_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "START_DEADLINE_S", 60.0)
    monkeypatch.setattr(launch_module, "PROBE_S", 0.01)
    monkeypatch.setattr("launcher.stop_signals.signal.signal", lambda *_: None)


def launching(
    probe: HttpProbe, server: Server, front: Front | None = None, drain_s: float = 30,
    processes: Childless | None = None,
) -> Launch:  # fmt: skip
    return Launch(
        server, front, "http://here", probe, processes or Childless(), Path("unused"), drain_s  # type: ignore[arg-type]
    )  # fmt: skip


def test_alive_means_200(answering: HttpProbe, silent: HttpProbe) -> None:
    assert answering.alive()
    assert answering.models() == [{"id": "m", "task": "embedding"}]
    assert not silent.alive()
    assert silent.models() == []


def test_a_proxy_that_answers_only_sometimes_does_not_serve_yet(
    silent: HttpProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([*[True] * (PROBES - 1), False, *[True] * PROBES])
    monkeypatch.setattr(silent, "alive", lambda: next(answers))
    launch = launching(silent, Server())
    assert not launch._serves()
    assert launch._serves()
    assert list(answers) == []


def test_another_status_is_not_alive(answering: HttpProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "healthy", False)
    assert not answering.alive()


def test_a_server_that_does_not_speak_http_is_not_alive() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"220 mail.example ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not HttpProbe(HOST, port).alive()
        thread.join()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_the_url_is_one_that_works_here(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_a_failed_deployment_ends_it_with_the_reason(silent: HttpProbe) -> None:
    server = Server("no such module")
    with pytest.raises(LaunchError, match="no such module"):
        launching(silent, server).run()
    assert server.stopped


def test_waiting_for_readiness_has_an_end(
    silent: HttpProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "START_DEADLINE_S", 0.0)
    server = Server()
    with pytest.raises(LaunchError, match="not ready after 0 s"):
        launching(silent, server).run()
    assert server.stopped


def test_a_stop_during_the_start_is_no_failure(silent: HttpProbe) -> None:
    """Ray's own signal handler, in place while it starts, raises SystemExit."""

    class Interrupted(Server):
        def start(self) -> None:
            raise SystemExit(15)

    server = Interrupted()
    assert launching(silent, server).run() == 0
    assert server.stopped


def test_a_lost_process_of_ray_ends_it(
    answering: HttpProbe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Childless, "lost", lambda _: ["raylet"])
    server = Server()
    with pytest.raises(LaunchError, match="'raylet' has ended unexpectedly"):
        launching(answering, server).run()
    assert not server.stopped, "Ray without its own processes cannot end in order"
    assert "Ready after" in capsys.readouterr().out


class Signalled:
    """Asked to end as soon as it serves."""

    def __init__(self, at_once: object) -> None:
        del at_once
        self._asked = iter([False, False])

    @property
    def requested(self) -> bool:
        return next(self._asked, True)

    def install(self) -> None:
        return


def test_it_ends_when_nothing_is_under_way(
    answering: HttpProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "StopSignals", Signalled)
    monkeypatch.setattr(launch_module, "POLL_S", 0.01)
    front = Front(under_way=3)
    server = Server()
    assert launching(answering, server, front).run() == 0
    assert front.events == ["start", "open", "shut with 3", "stop with 0"]
    assert server.stopped


def test_requests_that_do_not_end_are_left_after_the_deadline(
    answering: HttpProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "StopSignals", Signalled)
    front = Front(under_way=1 << 60)
    assert launching(answering, Server(), front, drain_s=0).run() == 0
    assert front.events[-2:] == [f"shut with {1 << 60}", f"stop with {(1 << 60) - 1}"]


def test_a_start_that_fails_opens_nothing(silent: HttpProbe) -> None:
    front = Front()
    with pytest.raises(LaunchError):
        launching(silent, Server("no such module"), front).run()
    assert front.events == ["start", "stop with 0"]


def test_what_goes_wrong_in_the_end_leaves_nothing_running(
    answering: HttpProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "StopSignals", Signalled)

    class Broken(Server):
        def stop(self) -> bool:
            raise ConnectionError("Ray is gone")

    front, processes = Front(), Childless()
    with pytest.raises(ConnectionError):
        launching(answering, Broken(), front, processes=processes).run()
    assert front.events[-1] == "stop with 0"
    assert processes.graces == [0]
