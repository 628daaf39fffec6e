"""What would cost without end is refused before anything is computed, or cut where a route cuts."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import string
import sys
from typing import Any

import psutil
import pytest
from pydantic_core import from_json

from models.batching import DynamicBatcher
from models.continuous_batching.decode_loop import DecodeLoop
from models.structured.compiler import GrammarCompiler
from models.structured.grammars import grammar_of
from models.types.generation import OutputFormat
from tests.security.asgi import JSON, assert_error, call
from tests.security.samples import SAMPLES
from tests.security.toys import ToyServer
from tests.unit.structured_samples import VOCABULARY

pytestmark = pytest.mark.asyncio(loop_scope="session")
ENCODER_TOKENS, CHAT_TOKENS = 2048, 4096
"""The contexts of the weightless models, whose tokens are bytes."""
LONG = "word " * (10 * CHAT_TOKENS // 5)
TEXT_MODEL, PAIR_MODEL = {"model": "embedding-model"}, {"model": "rerank-model"}
COHERE = {**TEXT_MODEL, "input_type": "query", "truncate": "NONE"}
CHAT = {"model": "chat-model"}
TOO_LONG: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {**TEXT_MODEL, "input": LONG}),
    ("/v1/embed", {**COHERE, "texts": [LONG]}),
    ("/v2/embed", {**COHERE, "texts": [LONG], "embedding_types": ["float"]}),
    ("/embed", {"inputs": LONG, "truncate": False}),
    ("/rerank", {"query": "sea", "texts": [LONG], "truncate": False}),
    ("/predict", {"inputs": LONG, "truncate": False}),
    ("/v1/moderations", {"input": LONG}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": LONG}]}),
    ("/v1/completions", {**CHAT, "prompt": LONG}),
]
CUT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/rerank", {**PAIR_MODEL, "query": "sea", "documents": [LONG]}),
    ("/v1/rerank", {**PAIR_MODEL, "query": LONG, "documents": ["a"]}),
    ("/v1/score", {**PAIR_MODEL, "text_1": "sea", "text_2": LONG}),
    ("/classify", {"model": "classifier-model", "input": [LONG]}),
]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that reach the queue of a model."""
    seen: list[int] = []
    submit_texts, submit_sequence = DynamicBatcher.submit, DecodeLoop.submit

    def texts(self: Any, items: Any) -> Any:
        seen.extend(len(item.ids) for item in items)
        return submit_texts(self, items)

    def sequence(self: Any, added: Any) -> None:
        seen.append(added.prompt_tokens)
        submit_sequence(self, added)

    monkeypatch.setattr(DynamicBatcher, "submit", texts)
    monkeypatch.setattr(DecodeLoop, "submit", sequence)
    return seen


@pytest.mark.parametrize(("path", "body"), TOO_LONG, ids=lambda value: str(value)[:20])
async def test_ten_contexts_are_refused_before_anything_is_computed(
    toys: ToyServer, computed: list[int], path: str, body: dict[str, Any]
) -> None:
    reply = await call(toys.app, "POST", path, json.dumps(body).encode(), JSON)
    error = assert_error(reply, 400, "context_length_exceeded")
    assert error["param"].partition(".")[0] in body
    assert computed == []


@pytest.mark.parametrize(("path", "body"), CUT, ids=lambda value: str(value)[:20])
async def test_where_texts_are_cut_one_context_is_computed(
    toys: ToyServer, computed: list[int], path: str, body: dict[str, Any]
) -> None:
    reply = await call(toys.app, "POST", path, json.dumps(body).encode(), JSON)
    assert reply.status == 200, reply.text
    assert computed == [ENCODER_TOKENS]


ONE = {**CHAT, "messages": [{"role": "user", "content": "hi"}]}
FAR = 999_999_999
OUT_OF_BOUNDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {**CHAT, "prompt": [FAR]}),
    ("/v1/completions", {**CHAT, "logit_bias": {str(FAR): 1}, "prompt": "x"}),
    ("/v1/completions", {**CHAT, "logprobs": 100_000, "prompt": "x"}),
    ("/v1/chat/completions", {**ONE, "logit_bias": {str(FAR): 1}}),
    ("/v1/chat/completions", {**ONE, "logit_bias": {"-1": 1}}),
    ("/v1/chat/completions", {**ONE, "logit_bias": {str(n): 1 for n in range(100_000)}}),
    ("/v1/chat/completions", {**ONE, "min_tokens": 1_000_000, "max_tokens": 1}),
    ("/v1/chat/completions", {**ONE, "max_tokens": 10**9}),
    ("/v1/chat/completions", {**ONE, "n": 2**63}),
    ("/v1/chat/completions", {**ONE, "n": 1_000_000}),
    ("/v1/chat/completions", {**ONE, "logprobs": True, "top_logprobs": 100_000}),
    ("/v1/chat/completions", {**ONE, "seed": 2**70}),
    ("/v1/chat/completions", {**ONE, "top_k": -(2**31), "n_keep": -(10**9)}),
    ("/v1/detokenize", {**CHAT, "tokens": [FAR]}),
    ("/v1/embeddings", {**TEXT_MODEL, "input": [FAR]}),
    ("/decode", {"ids": [[FAR]]}),
]


@pytest.mark.parametrize(("path", "body"), OUT_OF_BOUNDS, ids=lambda value: str(value)[-40:])
async def test_numbers_out_of_bounds_reach_no_engine(
    toys: ToyServer, computed: list[int], path: str, body: dict[str, Any]
) -> None:
    reply = await call(toys.app, "POST", path, json.dumps(body).encode(), JSON)
    assert assert_error(reply, 400)["param"].partition(".")[0] in body
    assert computed == []


STRANGERS, FIRST = 10_000, 1_000
NAMED = [
    *(("POST", path) for path in (
        "/v1/embeddings", "/v1/rerank", "/v1/chat/completions", "/v1/ocr", "/v1/classify",
        "/v1/anomaly/score", "/v1/classifier/predict", "/v1/models/load",
    )),
    ("GET", "/v1/models/"),
    ("GET", "/v1/anomaly/models/"),
]  # fmt: skip


def name_of(chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_letters, k=20))


async def ask_for_strangers(toys: ToyServer, count: int, chance: random.Random) -> None:
    for number in range(count):
        name = name_of(chance)
        method, path = NAMED[number % len(NAMED)]
        if method == "GET":
            reply = await call(toys.app, method, path + name)
        else:
            body = json.dumps({**SAMPLES[path], "model": name}).encode()
            reply = await call(toys.app, method, path, body, JSON)
        assert reply.status == 404, (path, reply.text)


async def kept(toys: ToyServer) -> tuple[int, set[Any], int]:
    """Files, series of metrics, blocks of memory."""
    metrics: Any = toys.server.metrics
    metrics.values.clear()  # the fake keeps every duration
    for _ in range(10):  # what the loop still has to end
        await asyncio.sleep(0)
    gc.collect()
    files = sum(1 for _ in toys.config.data_dir.rglob("*"))
    return files, set(metrics.totals), sys.getallocatedblocks()


async def test_names_of_nothing_leave_nothing(
    toys: ToyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no metric, no coalescer, no entry of a cache, by whatever name they come."""
    monkeypatch.setattr("logging.Logger.isEnabledFor", lambda *_: False)  # pytest keeps the lines
    chance = random.Random(7)
    from_json(json.dumps([name_of(chance) for _ in range(50_000)]))  # pydantic's cache is full now
    await ask_for_strangers(toys, FIRST, chance)
    files, labels, blocks = await kept(toys)
    await ask_for_strangers(toys, STRANGERS - FIRST, chance)
    files_now, labels_now, blocks_now = await kept(toys)
    assert (files_now, labels_now) == (files, labels)
    assert blocks_now - blocks < (STRANGERS - FIRST) // len(NAMED)  # of one route only: one each


SCHEMAS, WARM = 5_000, 500
MAX_GROWTH = 32 << 20


async def test_thousands_of_schemas_leave_nothing() -> None:
    """Each different and tiny: neither this process nor the compiler's own memory grows."""
    compiler = GrammarCompiler(VOCABULARY)

    def compile_some(start: int, count: int) -> None:
        for number in range(start, start + count):
            schema = json.dumps({"type": "object", "properties": {f"p{number}": {"type": "null"}}})
            compiler.compile(grammar_of(OutputFormat("json_schema", schema)), "response_format")

    compile_some(0, WARM)
    gc.collect()
    blocks, memory = sys.getallocatedblocks(), psutil.Process().memory_info().rss
    compile_some(WARM, SCHEMAS - WARM)
    gc.collect()
    assert sys.getallocatedblocks() - blocks < (SCHEMAS - WARM) // 4
    assert psutil.Process().memory_info().rss - memory < MAX_GROWTH
