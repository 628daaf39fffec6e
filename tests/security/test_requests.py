"""Hostile values in every field of every route that takes JSON, made from the routes' schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from deployments.ingress.app import all_endpoints
from deployments.ingress.errors import describe
from models.errors import InvalidInputError, ModelError
from tests.security.asgi import Reply, assert_error
from tests.security.hostile import (
    CANARY,
    Field,
    fields_of,
    odd_values,
    with_value,
    wrong_values,
)
from tests.security.samples import SAMPLES
from tests.security.toys import ToyServer

pytestmark = pytest.mark.asyncio(loop_scope="session")
WITH_JSON = [
    e for e in all_endpoints() if e.body is not None and "application/json" in e.media_types
]
DISTINCT = list({(e.handler, e.body): e for e in reversed(WITH_JSON)}.values())
"""Routes of one handler and one schema are one program."""
NAMES = ("model", "ocr_model", "annotation_model", "base_model", "name", "alias")


def named(endpoint: Any) -> str:
    return f"{endpoint.method} {endpoint.path}"


every_route = pytest.mark.parametrize("endpoint", WITH_JSON, ids=named)
every_program = pytest.mark.parametrize("endpoint", DISTINCT, ids=named)
every_schema = pytest.mark.parametrize(
    "endpoint", list({e.body: e for e in reversed(DISTINCT)}.values()), ids=named
)


def fields(endpoint: Any) -> list[Field]:
    return fields_of(endpoint.body.model_json_schema(), SAMPLES[endpoint.path])


def refusal(schema: type[BaseModel], body: bytes) -> Exception | None:
    try:
        schema.model_validate_json(body)
    except (ValidationError, ModelError) as error:
        return error
    return None


def assert_answered(reply: Reply, what: str) -> None:
    """2xx, or a refusal in the wire format that does not repeat what was sent, but for names."""
    if 200 <= reply.status < 300:
        assert b'"server_error"' not in reply.body, (what, reply.body[:500])
        return
    assert 400 <= reply.status < 500, (what, reply.status, reply.text[:500])
    assert_error(reply)
    assert CANARY not in reply.text or what.startswith(NAMES), (what, reply.text)


async def assert_alive(toys: ToyServer, endpoint: Any) -> None:
    reply = await toys.send(endpoint, json.dumps(SAMPLES[endpoint.path]).encode())
    assert reply.status == (404 if endpoint.path.endswith("/rename") else 200), reply.text


@every_route
async def test_the_samples_are_ordinary_requests(toys: ToyServer, endpoint: Any) -> None:
    await assert_alive(toys, endpoint)


@every_program
async def test_what_no_field_takes_is_refused(toys: ToyServer, endpoint: Any) -> None:
    """By the schema, or by the route where the schema takes anything; the first also over HTTP."""
    for field in fields(endpoint):
        for index, value in enumerate(wrong_values(field)):
            body = with_value(SAMPLES[endpoint.path], field, value)
            what = f"{field} = {value[:30]}"
            error = refusal(endpoint.body, body)
            if error is None:
                assert not field.types, what
                assert_answered(await toys.send(endpoint, body), what)
                continue
            assert isinstance(error, ValidationError | InvalidInputError), what
            assert len(json.dumps(describe(error)[1])) < 2000, what
            if index == 0:
                assert_error(await toys.send(endpoint, body), 400)
    await assert_alive(toys, endpoint)


@every_schema
async def test_odd_values_are_answered_or_refused(toys: ToyServer, endpoint: Any) -> None:
    """Over HTTP where the schema takes them."""
    for field in fields(endpoint):
        for value in odd_values(field):
            body = with_value(SAMPLES[endpoint.path], field, value)
            what = f"{field} = {value[:30]}"
            error = refusal(endpoint.body, body)
            if error is None:
                assert_answered(await toys.send(endpoint, body), what)
            else:
                assert CANARY not in json.dumps(describe(error)[1]), what
    await assert_alive(toys, endpoint)
