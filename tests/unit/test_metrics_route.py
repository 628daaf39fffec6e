"""GET /metrics: what of the node's export is shown, and what happens without one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from starlette.testclient import TestClient

from deployments.ingress.routes.metrics import ours
from tests.fakes import FakeCluster, make_client

EXPORTED = """\
# HELP ray_inference_requests_total Requests that were answered.
# TYPE ray_inference_requests_total counter
ray_inference_requests_total{task="embedding"} 3.0
# HELP ray_node_mem_total Memory of the node.
# TYPE ray_node_mem_total gauge
ray_node_mem_total{ip="10.0.0.1"} 1.0
# TYPE ray_serve_num_router_requests_total counter
ray_serve_num_router_requests_total{route="/"} 1.0
python_info{version="3.11"} 1.0
"""
KEPT = "".join(EXPORTED.splitlines(keepends=True)[i] for i in (0, 1, 2, 6, 7))


class Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(EXPORTED.encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def exporter() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def client_of(url: str | None) -> TestClient:
    cluster = FakeCluster()
    cluster.exporter = url
    return make_client(cluster=cluster)


def test_only_what_is_ours_or_serves_is_kept() -> None:
    assert ours(EXPORTED) == KEPT


def test_the_nodes_export_is_passed_on(exporter: str) -> None:
    reply = client_of(f"{exporter}/metrics").get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.text == KEPT


@pytest.mark.parametrize("kind", ["none", "refused", "missing"])
def test_without_an_export_the_answer_is_503(exporter: str, kind: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        urls = {
            "none": None,
            "refused": f"http://127.0.0.1:{closed.getsockname()[1]}/metrics",
            "missing": f"{exporter}/elsewhere",
        }
        reply = client_of(urls[kind]).get("/metrics")
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "metrics_unavailable"
    assert reply.headers["retry-after"] == "10"
