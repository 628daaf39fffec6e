"""Tracebacks of requests tell where something failed, and nothing that a client wrote."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from deployments.private_logs import keep_requests_out_of_logs, outline


@pytest.fixture(autouse=True)
def _private() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    keep_requests_out_of_logs()
    yield
    logging.setLogRecordFactory(before)


def quote_input() -> None:
    try:
        float("CANARY")
    except ValueError as error:
        raise RuntimeError("CANARY") from error


def logged(logger: str, message: str, caplog: pytest.LogCaptureFixture) -> str:
    try:
        quote_input()
    except RuntimeError:
        logging.getLogger(logger).exception(message)
    (record,) = caplog.records
    return logging.Formatter("%(message)s").format(record)


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("ray.serve", "Request failed."),  # what Serve's replicas say
        ("ray.serve", "Stream failed"),
        ("models.batching", "a batch of 3 items failed"),
        ("asyncio", "Task exception was never retrieved"),
        ("uvicorn.error", "Exception in ASGI application\n"),
    ],
)
def test_the_exception_of_a_request_loses_its_message(
    caplog: pytest.LogCaptureFixture, logger: str, message: str
) -> None:
    text = logged(logger, message, caplog)
    assert text.startswith(message)
    assert "CANARY" not in without_source(text)
    assert "in quote_input" in text
    assert text.index("ValueError") < text.rindex("RuntimeError")


async def fail() -> None:
    quote_input()


def call_back(argument: str) -> None:
    raise ValueError(argument)


async def test_what_asyncio_says_of_a_task_or_a_callback_does_not_quote_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task  # nobody has asked what became of it
    asyncio.get_running_loop().call_soon(call_back, "CANARY")
    await asyncio.sleep(0)
    told = [logging.Formatter("%(message)s").format(record) for record in caplog.records]
    assert [text.partition("\n")[0] for text in told] == [
        "Task exception was never retrieved",
        "Exception in callback call_back",
    ]
    assert all("Error" in text for text in told)
    assert not any("CANARY" in text for text in map(without_source, told))


def without_source(text: str) -> str:
    """A traceback shows lines of the source, and those of these tests have the word in them."""
    return text.replace('"CANARY"', "")


def test_why_a_load_failed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    text = logged("ray.serve", "Loading model a failed", caplog)
    assert "RuntimeError: CANARY" in text


def test_exceptions_that_cause_each_other_are_told_once() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first
    assert outline(first).split() == ["TypeError", "ValueError"]
