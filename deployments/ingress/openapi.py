"""The OpenAPI document, made from the table of endpoints and their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from deployments.ingress.errors import ANSWERS, HTTP_CODES
from deployments.ingress.schemas import ErrorReply
from deployments.ingress.server import PATH_PARAMETER, Endpoint

REFERENCE = "#/components/schemas/{model}"
FIELDS = {"application/json", "multipart/form-data"}
"""Media types of bodies that have fields; others are the file itself."""
BINARY = {"type": "string", "format": "binary"}
Definitions = Mapping[tuple[Any, JsonSchemaMode], dict[str, Any]]


def openapi_document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 for every endpoint, all error statuses included."""
    references, definitions = models_json_schema(list(_models(endpoints)), ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(endpoint.name, {})
        operations[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inference server", "version": version},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _models(endpoints: Iterable[Endpoint]) -> Iterable[tuple[type[BaseModel], JsonSchemaMode]]:
    found: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {
        (ErrorReply, "serialization"): None
    }
    for endpoint in endpoints:
        if endpoint.body is not None:
            found[endpoint.body, "validation"] = None
        if endpoint.response is not None:
            found[endpoint.response, "serialization"] = None
        found |= {(schema, "serialization"): None for _, schema in endpoint.also}
    return found


def _operation(endpoint: Endpoint, references: Definitions) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _responses(endpoint, references),
    }
    names = PATH_PARAMETER.findall(endpoint.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if endpoint.body is not None:
        schema = references[endpoint.body, "validation"]
        content = {
            media_type: {"schema": schema if media_type in FIELDS else BINARY}
            for media_type in endpoint.media_types
        }
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    return re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").rstrip("_")


def _responses(endpoint: Endpoint, references: Definitions) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.response is not None:
        schema = references[endpoint.response, "serialization"]
        content["application/json"] = {"schema": schema}
    else:
        content["text/html" if endpoint.path == "/docs" else "application/json"] = {}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": references[ErrorReply, "serialization"]}}
    statuses = sorted({answer.status for answer in ANSWERS.values()} | HTTP_CODES.keys())
    failures = {str(status): {"description": "Error", "content": error} for status in statuses}
    further = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": references[schema, "serialization"]}},
        }
        for status, schema in endpoint.also
    }
    return {"200": {"description": "OK", "content": content}, **further, **failures}
