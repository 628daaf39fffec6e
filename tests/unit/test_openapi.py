"""The OpenAPI document describes the route table, completely and validly."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from deployments.ingress.app import all_endpoints
from tests.fakes import make_client


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    reply: dict[str, Any] = make_client().get("/openapi.json").json()
    return reply


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    for endpoint in all_endpoints():
        path = endpoint.path.replace(":path", "")
        operation = document["paths"][path][endpoint.method.lower()]
        assert operation["summary"]
        assert ("requestBody" in operation) == (endpoint.body is not None)
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert names == set(re.findall(r"\{(\w+)\}", path))
        streams = "text/event-stream" in operation["responses"]["200"]["content"]
        assert streams == endpoint.streams


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert len(references) > 20
    assert references <= set(document["components"]["schemas"])


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


def test_errors_are_described_with_the_one_error_schema(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/embeddings"]["post"]["responses"]
    for status in ("400", "404", "413", "415", "429", "500", "503", "504"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorReply"}


def test_statuses_that_only_one_route_has_are_described(document: dict[str, Any]) -> None:
    def schema(method: str, path: str, status: str) -> Any:
        reply = document["paths"][path][method]["responses"][status]
        return reply["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]

    assert schema("post", "/v1/anomaly/fit", "202") == "JobReply"
    assert schema("put", "/process", "422") == "ErrorReply"
    assert "422" not in document["paths"]["/v1/ocr"]["post"]["responses"]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.add(str(values["id"]))
        link = values.get("href") or values.get("src") or ""
        if link.startswith("#"):
            self.targets.add(link[1:])
        elif "//" in link:
            self.external.append(link)


def test_the_page_needs_no_network_and_its_links_lead_somewhere() -> None:
    reply = make_client().get("/docs")
    assert reply.headers["content-type"].startswith("text/html")
    links = Links()
    links.feed(reply.text)
    assert not links.external
    assert links.targets
    assert links.targets <= links.ids
    for endpoint in all_endpoints():
        assert endpoint.path.replace(":path", "") in reply.text
