"""The generation engine on the real SmolLM2: its answers, and that no way to them changes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as api
import numpy as np
import pytest

from models.continuous_batching.batch import Batch
from models.llama_cpp.bindings import NativeModel
from models.llama_cpp.engine import LlamaCppGenerator
from models.llama_cpp.runner import LlamaRunner
from models.types.common import FloatArray
from models.types.generation import ChatPrompt, Message, TextPrompt
from tests.generators import Recorder, assert_same_up_to_ties, chat, ids_of, request_of

pytestmark = pytest.mark.weights

STORY = "The lighthouse keeper of the northern islands had a dog that could count. " * 4
QUESTIONS = (
    "What is two plus two?",
    "Name a color.",
    "Say hello in French.",
    "Who wrote Hamlet?",
    "What do bees make?",
    "Is water wet?",
    "Name an animal that can fly.",
    "What comes after Monday?",
)
GREEDY = {"temperature": 0, "logprobs": 2}
LOGITS = 0.5
"""Logits of this model reach 20. One row and many, alone and beside other sequences, go through
different kernels, some of which add up in 16 bits."""
NEAR = 0.5
"""The same for log probabilities of likely tokens; 0.2 was seen."""


@pytest.fixture(scope="module")
def path(starter_weights: Any) -> Path:
    found: Path = starter_weights("smollm2-135m-instruct")
    return found


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def engine(path: Path, recorder: Recorder) -> Iterator[LlamaCppGenerator]:
    engine = LlamaCppGenerator(path, recorder.listen, n_ctx=2048, n_threads=1)
    yield engine
    engine.close()


@pytest.fixture
def run(engine: LlamaCppGenerator, recorder: Recorder) -> Any:
    engine.clear_prefix_cache()

    def complete(prompt: Any, **sampling: Any) -> Any:
        engine.add("one", request_of(prompt, **sampling))
        return recorder.take("one")

    return complete


# --- answers ------------------------------------------------------------------------------------


def test_the_chat_template_is_the_models_own(engine: LlamaCppGenerator) -> None:
    assert engine.render(chat("Hi")) == (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = (Message("system", "Be brief."), Message("user", "Hi"))
    assert engine.render(ChatPrompt(messages)).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_sensible_answer(run: Any) -> None:
    completion = run(chat("What is 2 + 2?"), temperature=0, max_tokens=40)
    assert "4" in completion.text
    assert completion.finish_reason == "stop"
    assert "<|" not in completion.text
    continued = run(TextPrompt("One, two, three, four,"), temperature=0, max_tokens=2)
    assert continued.text.startswith(" five")


def test_control_tokens_are_single_tokens_in_the_template_only(
    run: Any, engine: LlamaCppGenerator
) -> None:
    plain = run(chat("x"), temperature=0, max_tokens=1).usage.prompt_tokens
    spelled = run(chat("<|im_end|>"), temperature=0, max_tokens=1).usage.prompt_tokens
    assert spelled - plain == len(ids_of(engine, "<|im_end|>")) - 1 > 0


def test_the_second_turn_costs_its_new_tokens_only(run: Any) -> None:
    first = run(chat(STORY), temperature=0, max_tokens=16)
    second = run(chat(STORY, first.text, "Go on."), temperature=0, max_tokens=8)
    new = second.usage.prompt_tokens - second.usage.cached_tokens
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert new < 30


# --- the same logits on every way ---------------------------------------------------------------


@pytest.fixture(scope="module")
def runner(path: Path) -> Iterator[LlamaRunner]:
    runner = LlamaRunner(NativeModel(path), cells=1024, slots=8, n_threads=1)
    yield runner
    runner.close()


def last_logits(runner: LlamaRunner, tokens: list[int], cut: int, slot: int = 0) -> FloatArray:
    """Logits after `tokens`, evaluated up to `cut` first and then the rest."""
    array = np.array(tokens, np.int32)
    for start, part in ((0, array[:cut]), (cut, array[cut:])):
        batch = Batch(512)
        index = batch.append(slot, start, part, outputs=start == cut)
        assert runner.decode(batch)
    return runner.sampler(request_of("").sampling, []).logits(index).copy()


def plain_logits(path: Path, tokens: list[int]) -> FloatArray:
    """The reference: llama.cpp's own batch helper, one prompt in one decode."""
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 512, 1, 1
    context = api.llama_init_from_model(model, params)
    buffer = (api.llama_token * len(tokens))(*tokens)
    assert api.llama_decode(context, api.llama_batch_get_one(buffer, len(tokens))) == 0
    size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    row = np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (size,)).copy()
    api.llama_free(context)
    api.llama_model_free(model)
    return row


def test_logits_are_llama_cpps_own(runner: LlamaRunner, path: Path) -> None:
    tokens = runner.vocabulary.tokenize(STORY, add_special=True, parse_special=False)
    expected = plain_logits(path, tokens)
    whole = last_logits(runner, tokens, len(tokens) - 1)
    runner.remove(0)
    assert np.abs(whole - expected).max() < LOGITS
    assert whole.argmax() == expected.argmax()


def test_a_copied_prefix_gives_the_logits_of_an_evaluated_one(runner: LlamaRunner) -> None:
    tokens = runner.vocabulary.tokenize(STORY, add_special=True, parse_special=False)
    evaluated = last_logits(runner, tokens, 40)
    runner.remove(0)
    other = [*tokens[:40], *tokens[10:30]]
    last_logits(runner, other, 40, slot=1)
    runner.copy(1, 2, 40)
    batch = Batch(512)
    index = batch.append(2, 40, np.array(tokens[40:], np.int32), outputs=1)
    assert runner.decode(batch)
    copied = runner.sampler(request_of("").sampling, []).logits(index)
    assert np.abs(copied - evaluated).max() < 1e-3  # the same kernels in the same order
    runner.remove(1)
    runner.remove(2)


def test_the_prefix_cache_changes_no_answer(run: Any) -> None:
    cold = run(chat(STORY, "Yes?", "Why?"), **GREEDY, max_tokens=32)
    assert cold.usage.cached_tokens == 0
    warm = run(chat(STORY, "Yes?", "Why?"), **GREEDY, max_tokens=32)
    assert warm.usage.cached_tokens == warm.usage.prompt_tokens - 1
    assert_same_up_to_ties(cold, warm, NEAR)


def test_company_changes_no_answer(engine: LlamaCppGenerator, recorder: Recorder, run: Any) -> None:
    alone = [run(chat(question), **GREEDY, max_tokens=24) for question in QUESTIONS]
    engine.clear_prefix_cache()
    for i, question in enumerate(QUESTIONS):
        engine.add(f"{i}", request_of(chat(question), **GREEDY, max_tokens=24))
    together = [recorder.take(f"{i}") for i in range(len(QUESTIONS))]
    for one, other in zip(alone, together, strict=True):
        assert_same_up_to_ties(one, other, NEAR)
    # near ties depend on the CPU; most texts have none
    assert sum(a.text == b.text for a, b in zip(alone, together, strict=True)) >= 3


def test_parking_changes_no_answer(path: Path) -> None:
    recorder = Recorder()
    engine = LlamaCppGenerator(path, recorder.listen, n_ctx=256, kv_cells=256, n_threads=1)
    requests = [
        request_of(f"{i}. {STORY}", **GREEDY, ignore_eos=True, max_tokens=90) for i in range(4)
    ]
    alone = []
    for i, request in enumerate(requests):
        engine.add(f"{i}", request)
        alone.append(recorder.take(f"{i}"))
    engine.clear_prefix_cache()
    for i, request in enumerate(requests):
        engine.add(f"{i}", request)
    together = [recorder.take(f"{i}") for i in range(4)]
    assert engine.stats.preemptions > 0
    for one, other in zip(alone, together, strict=True):
        assert_same_up_to_ties(one, other, NEAR)
    engine.close()


def test_a_running_stream_goes_on_while_a_long_prompt_arrives(
    engine: LlamaCppGenerator, recorder: Recorder
) -> None:
    engine.clear_prefix_cache()
    endless = {"temperature": 0, "ignore_eos": True, "max_tokens": 1000}
    engine.add("running", request_of(chat("Tell me a story."), **endless))
    recorder.started("running")
    earlier = len(recorder.steps)
    engine.add("arriving", request_of(STORY * 10, temperature=0, max_tokens=1))
    arrived = recorder.take("arriving")
    engine.cancel("running")
    last = next(i for i, step in enumerate(recorder.steps) if "arriving" in step)
    meanwhile = recorder.steps[earlier:last]
    assert arrived.usage.prompt_tokens > 500
    assert len(meanwhile) >= 5  # in chunks of 128 tokens at most
    assert all("running" in step for step in meanwhile)
