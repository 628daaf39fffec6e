"""The engine under every encoder, over a codec of words and a model the test holds back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest

from models.encoders.text_engine import BULK_TOKENS, EngineOptions, TextEngine
from models.encoders.tokenization import TokenSequence
from models.errors import EngineDeadError, InvalidInputError, ModelError
from models.types.common import FloatArray

WAIT = 30.0


class WordCodec:
    """A request is a text; its sequences are its words, its result their lengths as text.

    Words that start with "?" are refused, "hold" waits for the gate, "panic" raises what no codec
    may raise, and in a result "undecodable" and "odd" fail.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.held = threading.Event()
        self.encoded: list[str] = []

    def estimate(self, request: str) -> int:
        if request.startswith("bulk"):
            return BULK_TOKENS + 1
        return 0 if request.startswith("?") else len(request.split())

    def encode(self, requests: Sequence[str]) -> list[list[TokenSequence] | ModelError]:
        return [self._encode(request) for request in requests]

    def decode(self, request: str, sequences: list[TokenSequence], rows: list[FloatArray]) -> str:
        if "undecodable" in request:
            raise ModelError("not a number")
        if "odd" in request:
            raise ZeroDivisionError
        return " ".join(str(int(row[0])) for row in rows)

    def _encode(self, request: str) -> list[TokenSequence] | ModelError:
        self.encoded.append(request)
        if "hold" in request:
            self.held.set()
            assert self.gate.wait(WAIT)
        if "panic" in request:
            raise KeyboardInterrupt
        if request.startswith("?"):
            return InvalidInputError("refused")
        return [TokenSequence([0] * len(word)) for word in request.split()]


class Model:
    """Rows are the lengths of sequences; a sequence of 13 tokens breaks its batch."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        self.entered.set()
        assert self.gate.wait(WAIT)
        if any(len(s) == 13 for s in sequences):
            raise RuntimeError("unlucky")
        return [np.array([len(s)], dtype=np.float32) for s in sequences]


@pytest.fixture
def codec() -> WordCodec:
    return WordCodec()


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def engine(codec: WordCodec, model: Model) -> Iterator[TextEngine[str, str]]:
    engine = TextEngine(codec, model, max_tokens=9, memory_bytes=7, options=EngineOptions())
    yield engine
    codec.gate.set()
    model.gate.set()
    engine.close()


def test_every_request_gets_its_own_rows(engine: TextEngine[str, str]) -> None:
    assert engine.submit(["a bb", "ccc", "dd a"]).result(WAIT) == ["1 2", "3", "2 1"]
    assert (engine.max_tokens, engine.memory_bytes) == (9, 7)


def test_a_refused_request_takes_no_rows(engine: TextEngine[str, str]) -> None:
    one, refused, two = engine.submit(["a", "?", "bb"]).result(WAIT)
    assert (one, two) == ("1", "2")
    assert isinstance(refused, InvalidInputError)


def test_only_refused_requests_need_no_model(engine: TextEngine[str, str], model: Model) -> None:
    model.gate.clear()
    (refused,) = engine.submit(["?"]).result(WAIT)
    assert isinstance(refused, InvalidInputError)


def test_an_input_that_breaks_the_model_fails_alone(
    engine: TextEngine[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "models.batching"):
        good, bad = engine.submit(["a bb", "ccc " + "x" * 13]).result(WAIT)
    assert good == "1 2"
    assert type(bad) is ModelError


def test_a_result_that_cannot_be_decoded_fails_alone(engine: TextEngine[str, str]) -> None:
    good, bad = engine.submit(["a", "undecodable"]).result(WAIT)
    assert good == "1"
    assert isinstance(bad, ModelError)
    assert bad.message == "not a number"


@pytest.mark.parametrize("text", ["odd", "panic"])
def test_a_fault_of_ours_is_answered_all_the_same(
    engine: TextEngine[str, str], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.CRITICAL, "models.encoders.text_engine"),
        pytest.raises(ModelError),
    ):
        engine.submit([text]).result(WAIT)
    assert engine.submit(["a"]).result(WAIT) == ["1"]


def test_a_query_does_not_wait_for_the_tokenising_of_bulk(
    engine: TextEngine[str, str], codec: WordCodec
) -> None:
    bulk = [engine.submit(["bulk hold"]) for _ in range(3)]
    assert codec.held.wait(WAIT)
    assert engine.submit(["a"]).result(WAIT) == ["1"]
    assert not any(job.done() for job in bulk)


def test_work_being_tokenised_counts_as_queued(
    engine: TextEngine[str, str], codec: WordCodec
) -> None:
    job = engine.submit(["hold a b"])
    assert codec.held.wait(WAIT)
    assert engine.queued_tokens == 3
    codec.gate.set()
    job.result(WAIT)


def test_cancelled_before_its_turn_a_job_is_not_tokenised(
    engine: TextEngine[str, str], codec: WordCodec
) -> None:
    first = engine.submit(["hold"])
    assert codec.held.wait(WAIT)
    assert engine.submit(["never"]).cancel()
    codec.gate.set()
    first.result(WAIT)
    assert engine.submit(["last"]).result(WAIT) == ["4"]
    assert codec.encoded == ["hold", "last"]


def test_cancelled_while_tokenised_a_job_is_not_computed(
    engine: TextEngine[str, str], codec: WordCodec, model: Model
) -> None:
    job = engine.submit(["hold"])
    assert codec.held.wait(WAIT)
    assert job.cancel()
    codec.gate.set()
    with pytest.raises(CancelledError):
        job.result(WAIT)
    assert engine.submit(["?"]).result(WAIT)  # the same thread, so the job has been through it
    assert not model.entered.is_set()


def test_cancelled_in_the_queue_a_job_leaves_it(engine: TextEngine[str, str], model: Model) -> None:
    model.gate.clear()
    running = engine.submit(["a"])
    assert model.entered.wait(WAIT)
    waiting = engine.submit(["a bb ccc"])
    assert engine.submit(["?"]).result(WAIT)
    assert engine.queued_tokens == 6
    assert waiting.cancel()
    assert engine.queued_tokens == 0
    model.gate.set()
    assert running.result(WAIT) == ["1"]


def test_closing_fails_what_waits(
    engine: TextEngine[str, str], codec: WordCodec, model: Model
) -> None:
    model.gate.clear()
    running = engine.submit(["a"])
    assert model.entered.wait(WAIT)
    tokenising = engine.submit(["hold"])
    assert codec.held.wait(WAIT)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while engine.alive:
        closer.join(0.001)
    codec.gate.set()
    model.gate.set()
    closer.join(WAIT)
    assert running.result(WAIT) == ["1"]
    with pytest.raises(EngineDeadError):
        tokenising.result(WAIT)
    with pytest.raises(EngineDeadError):
        engine.submit(["a"])
