"""What every generation engine does: the weightless twin and tiny random llamas."""

from __future__ import annotations

import codecs
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.errors import (
    EngineDeadError,
    InputTooLongError,
    InvalidInputError,
    ModelError,
    OverloadedError,
)
from models.llama_cpp.engine import LlamaCppGenerator
from models.toy.generator import ToyGenerator
from models.transformers_lm.engine import TransformersGenerator
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    InfillPrompt,
    Message,
    OutputFormat,
    TextDelta,
    TextPrompt,
    TokenizeRequest,
    TokenPrompt,
    Tool,
    ToolChoice,
)
from tests.generators import (
    WAIT,
    Completion,
    Recorder,
    assert_same_up_to_ties,
    calls_of,
    chat,
    ids_of,
    request_of,
)
from tests.tiny_causal import write_causal_lm
from tests.tiny_gguf import write_gguf

CONTEXT = 256
PROMPT = "Once upon a time in a land far away"
RANDOM = {"temperature": 1.5, "ignore_eos": True, "max_tokens": 24}
NEVER = "\ue123"
ENDLESS = {"temperature": 0, "ignore_eos": True}

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_causal_lm(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module", params=["toy", "llama_cpp", "transformers"])
def make(request: pytest.FixtureRequest, tiny_gguf: Path, tiny_folder: Path) -> Iterator[Make]:
    """Builds an engine of 256 tokens of context; everything built is closed at the end."""
    engines = []

    def build(recorder: Recorder, *, context: int = CONTEXT, **options: Any) -> Any:
        if request.param == "toy":
            engine: Any = ToyGenerator(recorder.listen, context_length=context, **options)
        elif request.param == "transformers":
            engine = TransformersGenerator(
                tiny_folder, recorder.listen, n_threads=1, n_ctx=context, **options
            )
        else:
            engine = LlamaCppGenerator(
                tiny_gguf, recorder.listen, n_threads=1, n_ctx=context, **options
            )
        engines.append(engine)
        return engine

    yield build
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def shared(make: Make, recorder: Recorder) -> Any:
    return make(recorder)


@pytest.fixture
def engine(shared: Any) -> Any:
    """An idle engine with an empty prefix cache."""
    shared.clear_prefix_cache()
    eventually(lambda: shared.stats.kv_cells_used == 0)
    return shared


@pytest.fixture
def run(engine: Any, recorder: Recorder) -> Callable[..., Completion]:
    def complete(prompt: Any, **sampling: Any) -> Completion:
        engine.add("one", request_of(prompt, **sampling))
        completion = recorder.take("one")
        assert completion.error is None
        return completion

    return complete


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- choosing tokens ----------------------------------------------------------------------------


def test_a_context_length(engine: Any) -> None:
    assert engine.context_length == CONTEXT
    assert engine.memory_bytes >= 0
    assert engine.alive


def test_greedy_text_is_always_the_same(run: Any) -> None:
    first = run(PROMPT, temperature=0, max_tokens=40)
    assert first.text
    assert run(PROMPT, temperature=0, max_tokens=40, seed=5).text == first.text
    assert run(PROMPT, temperature=1e-6, max_tokens=40).text == first.text


def test_a_seed_decides_the_text(run: Any) -> None:
    texts = {seed: run(PROMPT, seed=seed, **RANDOM).text for seed in range(4)}
    assert len(set(texts.values())) > 1
    assert run(PROMPT, seed=2, **RANDOM).text == texts[2]


def test_without_a_seed_texts_differ(run: Any) -> None:
    assert len({run(PROMPT, **RANDOM).text for _ in range(5)}) > 1


def test_company_does_not_change_the_text(engine: Any, recorder: Recorder, run: Any) -> None:
    alone = [run(f"{PROMPT} {i}", seed=i, **RANDOM).text for i in range(8)]
    engine.clear_prefix_cache()
    for i in range(8):
        engine.add(f"many-{i}", request_of(f"{PROMPT} {i}", seed=i, **RANDOM))
    assert [recorder.take(f"many-{i}").text for i in range(8)] == alone


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_narrow_choice_is_greedy(run: Any, narrow: dict[str, float]) -> None:
    greedy = run(PROMPT, temperature=0, max_tokens=24)
    assert run(PROMPT, temperature=2.0, max_tokens=24, **narrow).text == greedy.text


def test_a_bias_forces_and_bans_tokens(engine: Any, run: Any) -> None:
    (token,) = ids_of(engine, "q")
    forced = run(PROMPT, temperature=0, max_tokens=5, logit_bias=((token, 100.0),))
    assert forced.text == "qqqqq"
    (first,) = run(PROMPT, temperature=0, max_tokens=1, logprobs=0).logprobs
    token = _id_of(engine, first.raw)
    banned = run(PROMPT, temperature=0, max_tokens=1, logprobs=0, logit_bias=((token, -100.0),))
    assert banned.logprobs[0].raw != first.raw


def test_penalties_discourage_repetition(engine: Any, run: Any) -> None:
    x, y = (ids_of(engine, letter)[0] for letter in "xy")
    bias = {"logit_bias": ((x, 100.0), (y, 60.0)), "temperature": 0, "max_tokens": 40}
    assert set(run("a", **bias).text) == {"x"}
    assert set(run("a", **bias, frequency_penalty=2.0).text) == {"x", "y"}
    assert set(run("a", **bias, repetition_penalty=3.0).text) == {"x", "y"}


def test_the_repetition_penalty_sees_the_prompt(engine: Any, run: Any) -> None:
    (x,) = ids_of(engine, "x")
    bias = {"logit_bias": ((x, 40.0),), "temperature": 0, "max_tokens": 1}
    assert run("a", **bias, repetition_penalty=50.0).text == "x"
    assert run("x", **bias, repetition_penalty=50.0).text != "x"
    assert run("x", **bias, frequency_penalty=2.0).text == "x"


def test_logprobs(run: Any) -> None:
    completion = run(PROMPT, temperature=0, max_tokens=8, logprobs=5, ignore_eos=True)
    for item in completion.logprobs:
        values = [rival.logprob for rival in item.top]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert math.fsum(map(math.exp, values)) <= 1 + 1e-5
        assert item.text == item.raw.decode("utf-8", "replace")
    assert len(completion.logprobs) == 8
    first = completion.logprobs[0]
    assert (first.raw, first.logprob) == (first.top[0].raw, first.top[0].logprob)


def test_logprobs_without_alternatives(run: Any) -> None:
    completion = run(PROMPT, temperature=0, max_tokens=4, logprobs=0, ignore_eos=True)
    assert [item.top for item in completion.logprobs] == [()] * 4
    assert run(PROMPT, temperature=0, max_tokens=4).logprobs == []


# --- ending -------------------------------------------------------------------------------------


def test_max_tokens(run: Any) -> None:
    for count in (1, 2, 17):
        completion = run(PROMPT, **ENDLESS, max_tokens=count)
        assert completion.finish_reason == "length"
        assert completion.usage.completion_tokens == count


def test_the_context_ends_a_completion(run: Any) -> None:
    completion = run(PROMPT, **ENDLESS)
    assert completion.finish_reason == "length"
    assert completion.usage.prompt_tokens + completion.usage.completion_tokens == CONTEXT
    assert run(PROMPT, **ENDLESS, max_tokens=10**9).text == completion.text


def test_the_end_token_ends_a_completion_and_can_be_put_off(run: Any, engine: Any) -> None:
    def find(minimum: int, **options: Any) -> Completion:
        """Some seed's completion; at this temperature every text ends some time."""
        texts = (run(PROMPT, seed=i, temperature=1.0, **options) for i in range(50))
        return next(c for c in texts if c.finish_reason == "stop")

    ended = find(0)
    length = ended.usage.completion_tokens
    later = run(PROMPT, temperature=1.0, seed=0, min_tokens=length + 20, max_tokens=length + 30)
    assert later.usage.completion_tokens >= length + 20
    never = run(PROMPT, temperature=1.0, seed=0, ignore_eos=True, max_tokens=200)
    assert never.usage.completion_tokens == 200


@pytest.mark.parametrize(("start", "size"), [(0, 1), (3, 1), (3, 4), (7, 9)])
def test_stop_strings(run: Any, start: int, size: int) -> None:
    text = run(PROMPT, **ENDLESS, max_tokens=60).text
    stop = text[start : start + size]
    completion = run(PROMPT, **ENDLESS, max_tokens=60, stop=(NEVER, stop))
    assert completion.finish_reason == "stop"
    assert completion.text == text[: text.index(stop)]


def test_a_stop_string_that_never_comes_changes_nothing(run: Any) -> None:
    text = run(PROMPT, **ENDLESS, max_tokens=60).text
    almost = text[2:8] + NEVER
    completion = run(PROMPT, **ENDLESS, max_tokens=60, stop=(almost, text[-1] + NEVER))
    assert completion.text == text
    assert completion.finish_reason == "length"


def test_stop_strings_are_not_looked_for_before_min_tokens(run: Any) -> None:
    text = run(PROMPT, **ENDLESS, max_tokens=20, min_tokens=20).text
    stops = tuple(set(text))
    late = run(PROMPT, **ENDLESS, max_tokens=40, min_tokens=20, stop=stops)
    assert late.usage.completion_tokens > 20
    assert late.text[: len(text)] == text


# --- structured output --------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    },
    "required": ["colour", "count", "tags"],
    "additionalProperties": False,
}
JSON_OUTPUT = OutputFormat("json_schema", json.dumps(SCHEMA))
HOT: dict[str, Any] = {"temperature": 2.0, "max_tokens": 200}


@pytest.mark.parametrize(
    "sampling",
    [
        HOT,
        {"temperature": 0, "max_tokens": 200},
        {**HOT, "logprobs": 2},
        {**HOT, "ignore_eos": True, "min_tokens": 60},
        {**HOT, "top_k": 2, "min_p": 0.1, "presence_penalty": 1.0, "repetition_penalty": 1.3},
    ],
    ids=["hot", "greedy", "logprobs", "no end", "narrow"],
)
@pytest.mark.parametrize(
    "prompt", [TextPrompt(PROMPT), chat("Which colour?")], ids=["text", "chat"]
)
def test_a_schema_is_kept_to(
    engine: Any, recorder: Recorder, prompt: Any, sampling: dict[str, Any]
) -> None:
    params = request_of("", **sampling).sampling
    for seed in range(3):
        request = GenerationRequest(prompt, replace(params, seed=seed), output_format=JSON_OUTPUT)
        engine.add("json", request)
        completion = recorder.take("json")
        assert completion.finish_reason == "stop", completion.text
        jsonschema.validate(json.loads(completion.text), SCHEMA)


def test_whatever_is_biased_the_schema_is_kept_to(engine: Any, recorder: Recorder) -> None:
    """A native grammar would abort the process when a bias bans all that it allows."""
    banned = tuple((token, -100.0) for token in range(259))
    params = request_of("", **HOT, logit_bias=banned).sampling
    engine.add("json", GenerationRequest(TextPrompt("x"), params, output_format=JSON_OUTPUT))
    jsonschema.validate(json.loads(recorder.take("json").text), SCHEMA)


def test_choices_and_patterns(engine: Any, recorder: Recorder) -> None:
    params = request_of("", **HOT).sampling
    for output, expected in (
        (OutputFormat("choice", json.dumps(["yes", "no"])), "yes|no"),
        (OutputFormat("regex", "[a-c]{4}"), "[a-c]{4}"),
    ):
        engine.add("one", GenerationRequest(TextPrompt("x"), params, output_format=output))
        assert re.fullmatch(expected, recorder.take("one").text)


def test_log_probabilities_do_not_know_the_schema(engine: Any, recorder: Recorder) -> None:
    params = request_of("", temperature=0, logprobs=3, max_tokens=200).sampling
    plain = GenerationRequest(TextPrompt("x"), params)
    engine.add("plain", plain)
    engine.add("json", replace(plain, output_format=JSON_OUTPUT))
    first, held = recorder.take("plain").logprobs[0], recorder.take("json").logprobs[0]
    assert held.raw == b"{"
    assert [item.raw for item in held.top] == [item.raw for item in first.top]


def test_a_schema_that_cannot_be_kept_to_is_refused(engine: Any, run: Any) -> None:
    output = OutputFormat("json_schema", json.dumps({"type": "nope"}))
    with pytest.raises(InvalidInputError) as caught:
        engine.add("json", GenerationRequest(TextPrompt("x"), output_format=output))
    assert caught.value.param == "response_format"
    assert run("x", max_tokens=1).usage.completion_tokens == 1


# --- tools and reasoning ------------------------------------------------------------------------

WEATHER = Tool("weather", "Looks it up.", json.dumps(SCHEMA))
CLOCK = Tool("clock", parameters='{"type": "object", "properties": {}}')


@pytest.fixture(scope="module")
def roomy(make: Make, recorder: Recorder) -> Any:
    """An engine whose context has room for descriptions of tools."""
    return make(recorder, context=1024)


@pytest.mark.parametrize("name", ["weather", "clock"])
def test_a_tool_that_must_be_called_is_called(roomy: Any, recorder: Recorder, name: str) -> None:
    prompt = replace(
        chat("Which colour?"),
        tools=(WEATHER, CLOCK),
        tool_choice=ToolChoice("required", (name,)),
        parallel_tool_calls=False,
    )
    sampling = request_of("", **HOT, seed=1).sampling
    roomy.add("tool", GenerationRequest(prompt, sampling))
    completion = recorder.take("tool")
    (call,) = calls_of(completion)
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")
    assert call.name == name
    assert call.id
    if name == "weather":
        jsonschema.validate(json.loads(call.arguments), SCHEMA)
    else:
        assert isinstance(json.loads(call.arguments), dict)


def test_a_call_that_is_cut_ends_with_length(roomy: Any, recorder: Recorder) -> None:
    prompt = replace(chat("Hi"), tools=(WEATHER,), tool_choice=ToolChoice("required"))
    sampling = request_of("", temperature=0, max_tokens=40).sampling
    roomy.add("tool", GenerationRequest(prompt, sampling))
    completion = recorder.take("tool")
    assert completion.finish_reason == "length"
    assert calls_of(completion)[0].name == "weather"


def test_tools_that_are_not_to_be_called_change_nothing(engine: Any, recorder: Recorder) -> None:
    sampling = request_of("", **ENDLESS, max_tokens=10).sampling
    prompt = chat("Hi")
    engine.add("plain", GenerationRequest(prompt, sampling))
    tools = replace(prompt, tools=(WEATHER,), tool_choice=ToolChoice("none"))
    engine.add("none", GenerationRequest(tools, sampling))
    assert recorder.take("none").text == recorder.take("plain").text


# --- prompts and usage --------------------------------------------------------------------------


def test_usage(run: Any, engine: Any) -> None:
    count = len(ids_of(engine, PROMPT))
    first = run(PROMPT, **ENDLESS, max_tokens=30, logprobs=0)
    assert len(first.logprobs) == 30
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (count, 30)
    assert first.usage.cached_tokens == 0
    assert run(PROMPT, **ENDLESS, max_tokens=30).usage.cached_tokens == count - 1


def test_the_second_turn_reuses_the_first(run: Any, engine: Any) -> None:
    first = run(chat("hello"), temperature=0, max_tokens=10, logit_bias=_letters(engine))
    second = run(chat("hello", first.text, "and then?"), temperature=0, max_tokens=10)
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    engine.clear_prefix_cache()
    again = run(chat("hello", first.text, "and then?"), temperature=0, max_tokens=10)
    assert again.usage.cached_tokens == 0
    assert again.text == second.text


def _letters(engine: Any) -> tuple[tuple[int, float], ...]:
    """So that what was written is tokenised as it was written."""
    return tuple((token, 60.0) for token in ids_of(engine, "qxzkw"))


def test_equal_prompts_at_the_same_time_are_evaluated_once(engine: Any, recorder: Recorder) -> None:
    prompt = PROMPT * 3
    count = len(ids_of(engine, prompt))
    for i in range(6):
        engine.add(f"same-{i}", request_of(prompt, **ENDLESS, max_tokens=20))
    completions = [recorder.take(f"same-{i}") for i in range(6)]
    assert len({completion.text for completion in completions}) == 1
    cached = sorted(completion.usage.cached_tokens for completion in completions)
    assert cached == [0, *[count - 1] * 5]


def test_texts_tokens_and_chats(run: Any, engine: Any) -> None:
    tokens = tuple(ids_of(engine, PROMPT))
    text = run(TextPrompt(PROMPT), temperature=0, max_tokens=12)
    assert run(TokenPrompt(tokens), temperature=0, max_tokens=12).text == text.text
    assert engine.detokenize(tokens) == PROMPT
    rendered = engine.render(chat(PROMPT))
    assert PROMPT in rendered
    assert run(chat(PROMPT), temperature=0, max_tokens=12).usage.prompt_tokens > len(tokens)


def test_an_echo_comes_first(engine: Any, recorder: Recorder, run: Any) -> None:
    text = run(PROMPT, **ENDLESS, max_tokens=5).text
    for prompt in (TextPrompt(PROMPT), TokenPrompt(ids_of(engine, PROMPT))):
        sampling = request_of("", **ENDLESS, max_tokens=5).sampling
        engine.add("echo", GenerationRequest(prompt, sampling, echo=True))
        assert recorder.take("echo").text == PROMPT + text


def test_an_echo_alone(engine: Any, recorder: Recorder) -> None:
    sampling = request_of("", max_tokens=0).sampling
    engine.add("echo", GenerationRequest(TextPrompt(PROMPT), sampling, echo=True))
    completion = recorder.take("echo")
    assert (completion.text, completion.finish_reason) == (PROMPT, "length")
    assert completion.usage.completion_tokens == 0


def _id_of(engine: Any, raw: bytes) -> int:
    pieces = engine._vocabulary.pieces
    return int(pieces.index(raw))


def test_a_prompt_is_scored_while_others_write(make: Make) -> None:
    recorder = Recorder()
    engine = make(recorder, max_sequences=4)
    alone = GenerationRequest(
        TextPrompt(PROMPT * 4),
        request_of("", **ENDLESS, max_tokens=3, logprobs=0).sampling,
        echo=True,
    )
    engine.add("alone", alone)
    expected = [item.logprob for item in recorder.take("alone").logprobs]
    for i in range(3):
        engine.add(f"{i}", request_of(f"{i}", **ENDLESS, max_tokens=60))
    engine.add("echo", alone)
    found = [item.logprob for item in recorder.take("echo").logprobs]
    assert found[0] is None
    assert found[1:] == pytest.approx(expected[1:], abs=0.05)  # other batches, other kernels


def test_a_gap_is_filled(engine: Any, recorder: Recorder, run: Any) -> None:
    before, after, middle = engine._vocabulary.infill_tokens
    tokens = (before, *ids_of(engine, "one "), after, *ids_of(engine, " three"), middle)
    expected = run(TokenPrompt(tokens), **ENDLESS, max_tokens=12)
    sampling = request_of("", **ENDLESS, max_tokens=12).sampling
    engine.add("gap", GenerationRequest(InfillPrompt("one ", " three"), sampling))
    completion = recorder.take("gap")
    assert completion.text == expected.text
    assert completion.usage.prompt_tokens == len(tokens)


def test_a_text_that_is_too_long_is_shortened_on_request(engine: Any, recorder: Recorder) -> None:
    sampling = request_of("", **ENDLESS, max_tokens=10).sampling
    request = GenerationRequest(TextPrompt("x" * 2000 + PROMPT), sampling, truncation="auto")
    engine.add("long", request)
    completion = recorder.take("long")
    assert completion.usage.prompt_tokens == CONTEXT - 10
    engine.clear_prefix_cache()
    tokens = ids_of(engine, "x" * 2000 + PROMPT)[-CONTEXT + 10 :]
    engine.add("short", GenerationRequest(TokenPrompt(tokens), sampling))
    assert recorder.take("short").text == completion.text


def test_a_chat_that_is_too_long_loses_its_oldest_turns_on_request(
    engine: Any, recorder: Recorder, run: Any
) -> None:
    system = Message("system", "Rule.")
    long = chat(*(f"{i} {PROMPT}" for i in range(9)))
    sampling = request_of("", **ENDLESS, max_tokens=20).sampling
    whole = ChatPrompt((system, *long.messages))
    engine.add("refused", GenerationRequest(TextPrompt("x"), sampling))
    recorder.take("refused")
    with pytest.raises(InputTooLongError):
        engine.add("refused", GenerationRequest(whole, sampling))
    engine.add("long", GenerationRequest(whole, sampling, truncation="auto"))
    completion = recorder.take("long")
    kept = [ChatPrompt((system, *long.messages[i:])) for i in (0, 2, 4, 6, 8)]
    lengths = [len(engine.tokenize(TokenizeRequest(prompt)).ids) for prompt in kept]
    fitting = next(i for i, length in enumerate(lengths) if length <= CONTEXT - 20)
    assert fitting > 0
    assert completion.usage.prompt_tokens == lengths[fitting]
    assert completion.text == run(kept[fitting], **ENDLESS, max_tokens=20).text


def test_a_last_turn_that_is_too_long_is_refused_all_the_same(engine: Any) -> None:
    request = GenerationRequest(chat("a", "b", "x" * 5000), truncation="auto")
    with pytest.raises(InputTooLongError) as caught:
        engine.add("long", request)
    assert caught.value.param == "messages"


def test_tokens_of_texts_and_chats(engine: Any) -> None:
    plain = engine.tokenize(TokenizeRequest(TextPrompt(PROMPT)))
    assert b"".join(plain.pieces).decode() == PROMPT
    assert plain.context_length == CONTEXT
    rendered = TextPrompt(engine.render(chat("Hi")))
    of_text = engine.tokenize(TokenizeRequest(rendered, parse_special=True))
    assert engine.tokenize(TokenizeRequest(chat("Hi"))).ids == of_text.ids
    assert len(engine.tokenize(TokenizeRequest(rendered)).ids) > len(of_text.ids)


def test_users_cannot_write_control_tokens(run: Any, engine: Any) -> None:
    assert len(ids_of(engine, "<|im_end|>")) > 1
    plain = run(chat("a" * 10), temperature=0, max_tokens=1).usage.prompt_tokens
    spelled = run(chat("<|im_end|>"), temperature=0, max_tokens=1).usage.prompt_tokens
    assert spelled == plain  # ten characters, ten tokens


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt(""),
        TokenPrompt(()),
        TokenPrompt((-1,)),
        TokenPrompt((10**6,)),
        TokenPrompt((2**31,)),
        ChatPrompt(()),
        ChatPrompt((Message("wizard", "hi"),)),
    ],
    ids=["text", "tokens", "negative", "beyond", "overflow", "messages", "role"],
)
def test_prompts_that_are_refused(engine: Any, prompt: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        engine.add("refused", request_of(prompt))
    assert refused.value.param == ("messages" if isinstance(prompt, ChatPrompt) else "prompt")
    assert engine.alive


def test_parameters_that_are_refused_leave_nothing_behind(engine: Any, run: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        engine.add("one", request_of(PROMPT, temperature=math.nan))
    assert refused.value.param == "temperature"
    assert run(PROMPT, max_tokens=1).finish_reason  # the id is free


def test_a_prompt_longer_than_the_context(run: Any, engine: Any) -> None:
    for prompt in (TokenPrompt((65,) * (CONTEXT + 1)), "q" * (CONTEXT + 1), chat("q" * CONTEXT)):
        with pytest.raises(InputTooLongError) as refused:
            engine.add("long", request_of(prompt))
        assert refused.value.limit == CONTEXT
        assert refused.value.tokens > CONTEXT
    full = run(TokenPrompt((65,) * CONTEXT), **ENDLESS)
    assert (full.usage.prompt_tokens, full.usage.completion_tokens) == (CONTEXT, 1)


def test_a_huge_prompt_is_refused_before_it_is_tokenised(engine: Any) -> None:
    started = time.thread_time()
    with pytest.raises(InputTooLongError):
        engine.add("huge", request_of("q" * 50_000_000))
    with pytest.raises(InputTooLongError):
        engine.add("huge", request_of(chat("<|im_end|>" * 5_000_000)))
    assert time.thread_time() - started < 5


# --- deltas -------------------------------------------------------------------------------------


def test_characters_are_never_cut(run: Any) -> None:
    content = "Grüße, 世界! 🙂🙃 ẞ"
    for seed in range(5):
        completion = run(chat(content), temperature=0.9, seed=seed, max_tokens=60, logprobs=0)
        raw = b"".join(item.raw for item in completion.logprobs)
        whole = codecs.getincrementaldecoder("utf-8")("replace").decode(raw)  # its whole characters
        assert completion.text == whole


def holding() -> tuple[threading.Event, Recorder]:
    """An event, and a recorder that holds the engine whenever it has said something until the event
    is set: however late this thread comes to it, no request has ended in the meantime."""
    added = threading.Event()
    return added, Recorder(lambda *_: added.wait(WAIT))


def test_the_listener_hears_all_sequences_once_per_step(make: Make) -> None:
    added, recorder = holding()
    engine = make(recorder)
    engine.add("gate", request_of("x", max_tokens=1))
    for i in range(4):
        prompt = f"{i}{PROMPT}"
        engine.add(f"s{i}", request_of(prompt, temperature=0, max_tokens=150, **_spell(engine)))
    added.set()
    texts = [recorder.take(f"s{i}").text for i in range(4)]
    assert [len(text) for text in texts] == [150] * 4
    assert all(len(step) == len(set(step)) for step in recorder.steps)
    assert sum(len(step) == 4 for step in recorder.steps) >= 30
    assert len(recorder.steps) < 4 * 150


def _spell(engine: Any) -> dict[str, Any]:
    """Letters only, so that every token has text of its own."""
    return {"ignore_eos": True, "logit_bias": _letters(engine)}


def test_the_last_delta_alone_has_the_end_and_the_usage(run: Any) -> None:
    *others, last = run(PROMPT, **ENDLESS, max_tokens=20).deltas
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert all(delta.finish_reason is None and delta.usage is None for delta in others)
    assert all(delta.text for delta in others)


# --- cancelling, crowding, dying ----------------------------------------------------------------


def test_a_cancelled_request_is_not_heard_of_again(make: Make) -> None:
    recorder = Recorder()
    engine = make(recorder)

    def cancel_third(request_id: str, event: TextDelta | ModelError) -> None:
        if request_id == "gone" and len(recorder.completions["gone"].deltas) == 3:
            engine.cancel("gone")

    recorder.react = cancel_third
    engine.add("gone", request_of(PROMPT, temperature=0, **_spell(engine)))
    engine.add("stays", request_of(PROMPT, temperature=0, max_tokens=60, **_spell(engine)))
    recorder.take("stays")
    assert len(recorder.completions["gone"].deltas) == 3
    assert engine.stats.busy_sequences == 0
    engine.clear_prefix_cache()
    eventually(lambda: engine.stats.kv_cells_used == 0)


def test_a_queued_request_can_be_cancelled(make: Make) -> None:
    added, recorder = holding()
    engine = make(recorder, max_sequences=1)
    engine.add("first", request_of(PROMPT, **ENDLESS, max_tokens=200))
    recorder.started("first")
    engine.add("queued", request_of(PROMPT, **ENDLESS))
    engine.cancel("queued")
    engine.add("last", request_of(PROMPT, **ENDLESS, max_tokens=2))
    added.set()
    recorder.take("last")
    assert "queued" not in recorder.completions


def test_unknown_ids_can_be_cancelled(engine: Any, run: Any) -> None:
    engine.cancel("nobody")
    assert run(PROMPT, max_tokens=1).finish_reason


def test_an_id_is_taken_until_its_request_ends(make: Make) -> None:
    added, recorder = holding()
    engine = make(recorder)
    engine.add("twin", request_of(PROMPT, **ENDLESS))
    with pytest.raises(InvalidInputError):
        engine.add("twin", request_of(PROMPT))
    added.set()
    recorder.take("twin")
    engine.add("twin", request_of(PROMPT, max_tokens=2))
    assert recorder.take("twin").finish_reason


def test_a_full_queue(make: Make) -> None:
    added, recorder = holding()
    engine = make(recorder, max_sequences=1, max_queued=1)
    engine.add("a", request_of(PROMPT, **ENDLESS))
    engine.add("b", request_of(PROMPT, **ENDLESS, max_tokens=2))
    with pytest.raises(OverloadedError):
        engine.add("c", request_of(PROMPT))
    engine.cancel("a")
    added.set()
    recorder.take("b")
    engine.add("c", request_of(PROMPT, max_tokens=2))
    recorder.take("c")


def test_parking_changes_no_text(make: Make) -> None:
    added, recorder = holding()
    added.set()
    engine = make(recorder, kv_cells=2 * CONTEXT, max_sequences=8)
    requests = [request_of(f"{i} {PROMPT}", **ENDLESS, max_tokens=90, logprobs=2) for i in range(6)]
    alone = []
    for i, request in enumerate(requests):
        engine.add(f"{i}", request)
        alone.append(recorder.take(f"{i}"))
    assert engine.stats.preemptions == 0
    engine.clear_prefix_cache()
    added.clear()
    for i, request in enumerate(requests):
        engine.add(f"{i}", request)
    added.set()
    together = [recorder.take(f"{i}") for i in range(6)]
    assert engine.stats.preemptions > 0
    for one, other in zip(alone, together, strict=True):
        assert other.usage.completion_tokens == one.usage.completion_tokens == 90
        assert_same_up_to_ties(one, other, tolerance=0.05)


def test_random_requests_and_cancellations_leave_the_kv_pool_as_it_was(make: Make) -> None:
    recorder = Recorder()
    engine = make(recorder, context=4 * CONTEXT, kv_cells=6 * CONTEXT, max_sequences=6)
    chance = random.Random(7)
    count = 200 if isinstance(engine, TransformersGenerator) else 1000  # it takes five times longer
    names = [f"r{i}" for i in range(count)]
    cancelled = set(chance.sample(names, count // 3))
    for name in names:
        request = _random_request(chance)
        eventually(lambda name=name, request=request: _added(engine, name, request))
        if name in cancelled and chance.random() < 0.5:
            engine.cancel(name)
        elif name in cancelled:
            time.sleep(0.002)
            engine.cancel(name)
    for name in names:
        if name not in cancelled:
            assert recorder.take(name).error is None
    eventually(lambda: engine.stats.busy_sequences + engine.stats.queued_requests == 0)
    engine.clear_prefix_cache()
    eventually(lambda: engine.stats.cached_sequences == 0)
    assert engine.stats.kv_cells_used == 0


def _added(engine: Any, name: str, request: GenerationRequest) -> bool:
    try:
        engine.add(name, request)
    except OverloadedError:
        return False
    return True


def _random_request(chance: random.Random) -> Any:
    prompt = "".join(chance.choices("abc é🙂<|>", k=chance.randint(1, 80)))
    request = request_of(
        chat(prompt) if chance.random() < 0.5 else prompt,
        temperature=chance.choice([0, 0.7, 1.5]),
        top_p=chance.choice([1.0, 0.9]),
        top_k=chance.choice([0, 5]),
        seed=chance.choice([None, 1]),
        max_tokens=chance.choice([1, 5, 40, None]),
        stop=chance.choice([(), ("a",), ("ab", "\n")]),
        logprobs=chance.choice([None, 3]),
        presence_penalty=chance.choice([0.0, 1.0]),
        repetition_penalty=chance.choice([1.0, 1.3]),
        ignore_eos=chance.random() < 0.3,
    )
    output = chance.choice([None, None, JSON_OUTPUT, OutputFormat("choice", '["a", "b"]')])
    read = request.prompt
    if isinstance(read, ChatPrompt) and chance.random() < 0.3:
        choice = ToolChoice(chance.choice(["auto", "required"]))
        read = replace(read, tools=(CLOCK,), tool_choice=choice)
    return replace(request, prompt=read, output_format=output, echo=chance.random() < 0.2)


def test_closing_answers_whoever_waits(make: Make) -> None:
    added, recorder = holding()
    engine = make(recorder, max_sequences=1)
    engine.add("running", request_of(PROMPT, **ENDLESS))
    engine.add("waiting", request_of(PROMPT, **ENDLESS))
    closer = threading.Thread(target=engine.close)
    closer.start()
    eventually(lambda: engine._engine._closing)
    added.set()
    closer.join()
    engine.close()
    assert not engine.alive
    assert isinstance(recorder.completions["waiting"].error, EngineDeadError)
    with pytest.raises(EngineDeadError):
        engine.add("late", request_of(PROMPT))
    with pytest.raises(EngineDeadError):
        engine.add("late", request_of(chat(PROMPT)))
    engine.cancel("late")


def test_a_listener_that_fails_ends_the_engine(make: Make) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    engine = make(Recorder(fail))
    engine.add("one", request_of(PROMPT, **ENDLESS))
    eventually(lambda: not engine.alive)
    with pytest.raises(EngineDeadError):
        engine.add("two", request_of(PROMPT))
    engine.close()


def test_a_failed_computation_ends_the_engine(make: Make, monkeypatch: Any) -> None:
    recorder = Recorder()
    engine = make(recorder)

    def fail(*_: Any) -> bool:
        raise RuntimeError("status -3")

    monkeypatch.setattr(engine._engine.loop.runner, "decode", fail)
    engine.add("one", request_of(PROMPT, **ENDLESS))
    assert isinstance(recorder.take("one").error, EngineDeadError)
    eventually(lambda: not engine.alive)
    engine.close()
