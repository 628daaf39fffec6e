"""Requests that schemathesis makes of our own OpenAPI document, right and wrong ones, for every
operation: the answer is one that the document describes, and never a failure of the server."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from deployments.ingress.app import all_endpoints
from deployments.ingress.openapi import openapi_document
from tests.security.asgi import Reply, assert_error, call
from tests.security.samples import SAMPLES
from tests.security.toys import ToyServer

HERE = "http://127.0.0.1:8000"
CHECKS: Any = [not_a_server_error, status_code_conformance]
WITHOUT_RAY = {"/metrics"}
"""Nobody exports figures here: 503."""
OPERATIONS = [
    found.ok()
    for found in schemathesis.openapi.from_dict(
        openapi_document(all_endpoints(), "1")
    ).get_all_operations()
]
WITH_BODY = [operation for operation in OPERATIONS if operation.body]
bounded = settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.label)
every_body = pytest.mark.parametrize("operation", WITH_BODY, ids=lambda o: o.label)
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def answered(toys: ToyServer, case: Case) -> Reply:
    """The answer, checked against the document."""
    request = requests.Request(**case.as_transport_kwargs(HERE)).prepare()
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
    reply = await call(toys.app, str(request.method), request.path_url, body, headers)
    if case.path not in WITHOUT_RAY:
        headers = {name: [value] for name, value in reply.headers.items()}
        seen = Response(reply.status, headers, reply.body, request, elapsed=0.0, verify=False)
        is_json = reply.headers["content-type"] == "application/json"
        case.validate_response(seen, checks=CHECKS + [response_schema_conformance] * is_json)
    if reply.status >= 400 and reply.status != 422:  # which has another client's field too
        assert_error(reply)
    assert b'"server_error"' not in reply.body
    return reply


@every_operation
@bounded
@given(data=st.data())
async def test_right_requests(toys: ToyServer, operation: Any, data: Any) -> None:
    case = data.draw(operation.as_strategy(GenerationMode.POSITIVE))
    await answered(toys, case)


@every_body
@bounded
@given(data=st.data())
async def test_right_fields_of_ordinary_requests(
    toys: ToyServer, operation: Any, data: Any
) -> None:
    """Some fields of a request that is served otherwise, so that they reach the engines."""
    sample = SAMPLES.get(operation.path)
    case = data.draw(operation.as_strategy(GenerationMode.POSITIVE))
    if sample is None or not isinstance(case.body, dict):
        return
    fields = [name for name in case.body if name != "model"]
    chosen = data.draw(st.sets(st.sampled_from(fields), max_size=3)) if fields else ()
    case.body = {**sample, **{name: case.body[name] for name in sorted(chosen)}}
    await answered(toys, case)


@every_body
@bounded
@given(data=st.data())
async def test_wrong_requests(toys: ToyServer, operation: Any, data: Any) -> None:
    case = data.draw(operation.as_strategy(GenerationMode.NEGATIVE))
    await answered(toys, case)
