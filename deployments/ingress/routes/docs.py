"""GET /openapi.json, and GET /docs: the same document as a page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from deployments.ingress.openapi import openapi_document
from deployments.ingress.server import Endpoint, Server

VERSION = "0.1.0"

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border: 1px solid #8884; border-radius: .5rem; margin: .5rem 0; padding: .5rem 1rem; }
summary { cursor: pointer; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; background: #8881; padding: .75rem; border-radius: .5rem; }
.method { display: inline-block; width: 4.5rem; font-weight: 700; }
.tag { text-transform: capitalize; margin: 1.5rem 0 .25rem; }
"""


def docs_endpoints(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """The two endpoints that describe `endpoints` and themselves."""

    async def openapi(server: Server, request: Request, body: None) -> Response:
        """The OpenAPI 3.1 document of this server."""
        del server, request, body
        return JSONResponse(document)

    async def docs(server: Server, request: Request, body: None) -> Response:
        """The API as a readable page."""
        del server, request, body
        return HTMLResponse(page)

    described = (
        Endpoint("GET", "/openapi.json", openapi, "docs"),
        Endpoint("GET", "/docs", docs, "docs"),
    )
    document = openapi_document([*endpoints, *described], VERSION)
    page = docs_page(document)
    return described


def docs_page(document: dict[str, Any]) -> str:
    """One self-contained HTML page: an expandable entry per operation, schemas below."""
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            entry = _operation(method, path, operation)
            sections.setdefault(operation["tags"][0], []).append(entry)
    body = "".join(
        f'<h2 class="tag">{escape(tag)}</h2>{"".join(entries)}' for tag, entries in sections.items()
    )
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"{_pre(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document['info']['title'])}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(document['info']['title'])}</h1>"
        f'<p>Machine-readable: <a href="openapi.json">openapi.json</a></p>{body}'
        f"<h2>Schemas</h2>{schemas}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    answer = operation["responses"]["200"]["content"]
    links = [
        f"<p>{label}: {_links(part)}</p>"
        for label, part in (("Request", content), ("Response", answer))
        if part
    ]
    return (
        f'<details><summary><span class="method">{escape(method.upper())}</span>'
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"{''.join(links)}</details>"
    )


def _links(content: dict[str, Any]) -> str:
    parts = []
    for media_type, entry in content.items():
        name = entry.get("schema", {}).get("$ref", "").rpartition("/")[2]
        link = f' <a href="#{escape(name)}"><code>{escape(name)}</code></a>' if name else ""
        parts.append(f"<code>{escape(media_type)}</code>{link}")
    return ", ".join(parts)


def _pre(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
