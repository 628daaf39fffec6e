"""What engines tell of their batches and queues."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from models.batching import BatchLimits, BatchStats, DynamicBatcher
from models.encoders.length_split import split_by_length
from models.engine_figures import BatchingGenerator, QueueingModel
from models.errors import ModelError
from models.toy.encoder import ToyEncoder
from models.toy.generator import ToyGenerator
from models.types.generation import GenerationRequest, SamplingParams, TextPrompt

WAIT = 30.0
LIMITS = BatchLimits(batch_cost=100, batch_items=1, queued_cost=1000)


def test_a_batch_tells_how_long_its_submissions_have_waited() -> None:
    held, seen = threading.Event(), list[BatchStats]()

    def compute(items: list[int]) -> Sequence[int | ModelError]:
        assert held.wait(WAIT)
        return items

    batcher = DynamicBatcher[int, int](compute, lambda _: 1, LIMITS, on_batch=seen.append)
    answers = [batcher.submit([1, 2]), batcher.submit([3])]
    held.set()
    for answer in answers:
        answer.result(WAIT)
    batcher.close()
    assert [stats.items for stats in seen] == [1, 1, 1]
    assert seen[0].waited_s >= 0
    followers = sorted(stats.waited_s for stats in seen[1:])
    assert followers[0] == 0  # the second item of a submission that was begun before
    assert followers[1] > 0


def test_a_batch_tells_how_much_of_it_was_padding() -> None:
    seen = list[BatchStats]()

    def compute(lengths: list[int]) -> Sequence[int | ModelError]:
        split_by_length(sorted(lengths))
        return lengths

    limits = BatchLimits(batch_cost=100, batch_items=10, queued_cost=1000)
    batcher = DynamicBatcher[int, int](compute, int, limits, on_batch=seen.append)
    batcher.submit([2, 3, 5]).result(WAIT)
    batcher.submit([4]).result(WAIT)
    batcher.close()
    assert [(stats.cost, stats.padding) for stats in seen] == [(10, 5), (4, 0)]


def test_a_generation_engine_tells_each_wait_once() -> None:
    ended = threading.Event()
    engine = ToyGenerator(listener=lambda events: _set_at_end(ended, events))
    try:
        params = SamplingParams(max_tokens=2)
        engine.add("a", GenerationRequest(TextPrompt("abc"), params))
        assert ended.wait(WAIT)
        assert isinstance(engine, BatchingGenerator)
        (wait,) = engine.take_waits()
        assert 0 <= wait < WAIT
        assert engine.take_waits() == []
        assert engine.stats.kv_cells > 0
    finally:
        engine.close()


def _set_at_end(ended: threading.Event, events: Sequence[tuple[str, object]]) -> None:
    if any(getattr(event, "finish_reason", None) for _, event in events):
        ended.set()


def test_an_encoder_tells_what_waits() -> None:
    encoder = ToyEncoder()
    assert isinstance(encoder, QueueingModel)
    assert encoder.queued_tokens == 0
    encoder.close()
