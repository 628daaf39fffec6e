"""Fetching what clients name by URL, against listeners of this machine that count what reaches
them."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deployments.ingress import public_addresses, remote_files
from deployments.ingress.public_addresses import is_public, resolve
from deployments.ingress.remote_files import RemoteFiles
from models.errors import InvalidInputError

PARAM = "document.document_url"
HIDDEN = "The URL could not be fetched."


class Listener(ThreadingHTTPServer):
    """Answers by path and remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.hits: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.redirects: dict[str, str] = {}
        self.release = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave early are what some tests are about."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answers(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        listener = self.server
        listener.hits.append(self.path)
        listener.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path in listener.redirects:
            self.send_response(302)
            self.send_header("location", listener.redirects[self.path])
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        if self.path == "/gzip":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        if self.path == "/endless":
            while not listener.release.is_set():
                self.wfile.write(bytes(65536))
        elif self.path == "/slow":
            self.wfile.flush()
            listener.release.wait(30)
        else:
            self.wfile.write(b"file bytes")

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def fetcher(**options: Any) -> RemoteFiles:
    """One that may talk to this machine, as if it were somewhere else."""
    return RemoteFiles(**{"max_bytes": 1000, "seconds": 20, "allowed": lambda _: True, **options})


async def refused(files: RemoteFiles, url: str) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        await files.fetch(url, PARAM)
    assert caught.value.param == PARAM
    return caught.value


async def test_a_file_is_fetched(listener: Listener) -> None:
    url = f"http://127.0.0.1:{listener.port}/a.pdf?b=c"
    assert await fetcher().fetch(url, PARAM) == b"file bytes"
    assert listener.hits == ["/a.pdf?b=c"]
    sent = listener.headers[0]
    assert sent["accept-encoding"] == "identity"
    assert not {"cookie", "authorization"} & set(sent)


async def test_redirects_are_followed_a_few_times(listener: Listener) -> None:
    listener.redirects = {"/1": "/2", "/2": f"http://localhost:{listener.port}/3"}
    url = f"http://127.0.0.1:{listener.port}/1"
    assert await fetcher().fetch(url, PARAM) == b"file bytes"
    assert listener.hits == ["/1", "/2", "/3"]
    listener.redirects["/3"] = "/1"
    assert (await refused(fetcher(), url)).message == HIDDEN
    assert len(listener.hits) == 3 + remote_files.MAX_REDIRECTS + 1


INSIDE = (
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://017700000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://localhost.:{port}/",
    "http://a@127.0.0.1:{port}/",
    "http://1.1.1.1@127.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "http://[fd00::1]/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://",
    "http:///x",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:{port}\\@1.1.1.1/",
    "http://" + "a" * 3000,
)


@pytest.mark.parametrize("url", INSIDE)
async def test_what_leads_inside_reaches_nobody(listener: Listener, url: str) -> None:
    files = RemoteFiles(max_bytes=1000, seconds=20)
    error = await refused(files, url.format(port=listener.port))
    assert error.message == HIDDEN
    assert listener.hits == []


async def test_a_redirect_inside_is_not_followed(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One listener plays the Internet under a name that resolves, the other stands inside."""
    inside = Listener()
    try:
        thread = threading.Thread(target=inside.serve_forever, args=(0.01,))
        thread.start()
        files = fetcher(allowed=lambda address: address != ipaddress.ip_address("127.0.0.1"))
        monkeypatch.setattr(remote_files, "resolve", playing_internet)
        for location in (f"http://127.0.0.1:{inside.port}/", "file:///etc/passwd", "http://[::1"):
            listener.redirects["/"] = location
            await refused(files, f"http://public.example:{listener.port}/")
        assert len(listener.hits) == 3
        assert inside.hits == []
    finally:
        inside.shutdown()
        inside.server_close()
        thread.join()


def playing_internet(host: str, port: int, allowed: Any) -> list[str]:
    return ["127.0.0.1"] if host == "public.example" else resolve(host, port, allowed)


async def test_the_connection_goes_to_the_address_that_was_checked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name service that answers differently the second time is not asked a second time."""
    asked: list[str] = []

    def once(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "192.0.2.1", port))]

    monkeypatch.setattr(public_addresses.socket, "getaddrinfo", once)
    url = f"http://rebinding.example:{listener.port}/"
    assert await fetcher().fetch(url, PARAM) == b"file bytes"
    assert asked == ["rebinding.example"]
    assert listener.headers[0]["host"] == f"rebinding.example:{listener.port}"


async def test_all_addresses_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(public_addresses.socket, "getaddrinfo", both)
    assert resolve("mixed.example", 80, is_public) == []


async def test_bytes_are_counted_while_they_arrive(listener: Listener) -> None:
    error = await refused(fetcher(), f"http://127.0.0.1:{listener.port}/endless")
    assert "1000 bytes" in error.message


async def test_a_server_that_never_ends_is_left(listener: Listener) -> None:
    files = fetcher(seconds=0.3)
    error = await asyncio.wait_for(refused(files, f"http://127.0.0.1:{listener.port}/slow"), 10)
    assert error.message == HIDDEN


@pytest.mark.parametrize("path", ["/missing", "/gzip"])
async def test_only_plain_files_are_taken(listener: Listener, path: str) -> None:
    error = await refused(fetcher(), f"http://127.0.0.1:{listener.port}{path}")
    assert error.message == HIDDEN
    assert listener.hits == [path]


@pytest.mark.parametrize(
    ("address", "public"),
    [("1.1.1.1", True), ("2606:4700::1111", True), ("::ffff:1.1.1.1", True), ("127.0.0.1", False),
     ("100.64.0.1", False), ("192.168.0.1", False), ("224.0.0.1", False),
     ("255.255.255.255", False),
     ("2002:7f00:1::", False), ("64:ff9b::a00:1", False), ("::ffff:10.0.0.1", False),
     ("fc00::1", False), ("ff02::1", False), ("::127.0.0.1", False)],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


async def test_names_that_take_long_to_resolve_hold_up_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, release = threading.Event(), threading.Event()

    def slow(*args: Any) -> list[str]:
        asked.set()
        release.wait(30)
        return []

    monkeypatch.setattr(remote_files, "resolve", slow)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    fetching = asyncio.create_task(refused(fetcher(), "http://slow.example/a.pdf"))
    try:
        while not asked.is_set():
            await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(int, "5"), 10) == 5
    finally:
        release.set()
    assert (await fetching).message == HIDDEN
