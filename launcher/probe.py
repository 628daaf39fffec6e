"""The running server, asked over HTTP like any client would."""

from __future__ import annotations

import http.client
import json
from typing import Any

TIMEOUT_S = 5
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def url_of(host: str, port: int) -> str:
    """One that works on this machine."""
    host = EVERY_INTERFACE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpProbe:
    """One address; a new connection per question."""

    def __init__(self, host: str, port: int) -> None:
        self._host = EVERY_INTERFACE.get(host, host)
        self._port = port

    def alive(self) -> bool:
        return self._get("/health") is not None

    def models(self) -> list[dict[str, Any]]:
        """The entries of GET /v1/models; empty if it does not answer, or to keys alone."""
        body = self._get("/v1/models")
        return list(json.loads(body)["data"]) if body else []

    def _get(self, path: str) -> bytes | None:
        """The body of a 200, else None."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == http.client.OK else None
