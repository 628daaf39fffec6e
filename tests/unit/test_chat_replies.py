"""Chat replies with reasoning and tool calls, whole and streamed, in OpenAI's own types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from models.types.common import Usage
from models.types.generation import TextDelta, TokenLogprob, ToolCallDelta
from tests.scripted_generation import CHAT, HELLO, ask_chat, events_of, post, script, stream_chat

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
END = {"finish_reason": "tool_calls", "usage": Usage(7, 9, 0, 4)}
CALLING = (
    [(0, TextDelta("", reasoning="Let me "))],
    [(0, TextDelta("", reasoning="call."))],
    [(0, TextDelta("", tool_calls=(ToolCallDelta(0, id="call_a", name="f"),)))],
    [(0, TextDelta("", tool_calls=(ToolCallDelta(0, '{"x":'),)))],
    [
        (
            0,
            TextDelta(
                "",
                tool_calls=(ToolCallDelta(0, "1}"), ToolCallDelta(1, "{", id="call_b", name="g")),
            ),
        )
    ],
    [(0, TextDelta("", tool_calls=(ToolCallDelta(1, "}"),)))],
    [(0, TextDelta("", **END))],  # type: ignore[arg-type]
)


def test_calls_and_reasoning_of_a_whole_completion() -> None:
    completion = ask_chat({"tools": TOOLS}, *CALLING)
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.refusal is None
    calls: Any = choice.message.tool_calls
    assert [(c.id, c.type, c.function.name, c.function.arguments) for c in calls] == [
        ("call_a", "function", "f", '{"x":1}'),
        ("call_b", "function", "g", "{}"),
    ]
    extra = choice.message.model_extra or {}
    assert extra["reasoning_content"] == extra["reasoning"] == "Let me call."
    assert completion.usage is not None
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == 4


def test_what_is_not_there_is_not_mentioned() -> None:
    reply = post(script(*HELLO), "/v1/chat/completions", CHAT).json()
    assert set(reply) == {"id", "object", "created", "model", "choices", "usage"}
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello", "refusal": None}


def test_a_text_beside_calls_and_reasoning_without_a_text() -> None:
    call = (ToolCallDelta(0, "{}", id="c", name="f"),)
    text = [(0, TextDelta("I call.", tool_calls=call))], CALLING[-1]
    assert ask_chat({"tools": TOOLS}, *text).choices[0].message.content == "I call."
    cut = [(0, TextDelta("", reasoning="Hm", finish_reason="length", usage=Usage(1, 1, 0, 1)))]
    assert ask_chat({}, cut).choices[0].message.content == ""


def test_the_clients_accumulator_puts_streamed_calls_together() -> None:
    chunks = stream_chat({"tools": TOOLS}, *CALLING)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(chunk)
    choice: Any = state.current_completion_snapshot.choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("call_a", "f", '{"x":1}'),
        ("call_b", "g", "{}"),
    ]


def test_every_piece_of_a_call_has_its_index_and_only_the_first_its_name() -> None:
    chunks = stream_chat({"tools": TOOLS}, *CALLING)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    pieces = [
        call.model_dump(exclude_unset=True) for delta in deltas for call in delta.tool_calls or []
    ]
    assert pieces == [
        {
            "index": 0,
            "id": "call_a",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"x":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {
            "index": 1,
            "id": "call_b",
            "type": "function",
            "function": {"name": "g", "arguments": "{"},
        },
        {"index": 1, "function": {"arguments": "}"}},
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 7 + ["tool_calls"]
    assert deltas[-1].model_dump(exclude_unset=True) == {}


def test_reasoning_is_streamed_under_both_names_before_the_content() -> None:
    boundary = [(0, TextDelta("4", reasoning="."))], *HELLO[1:]
    chunks = stream_chat({}, [(0, TextDelta("", reasoning="Two"))], *boundary)
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks]
    assert deltas[1:4] == [
        {"reasoning_content": "Two", "reasoning": "Two"},
        {"reasoning_content": ".", "reasoning": ".", "content": "4"},
        {"content": "llo"},
    ]


def test_clients_of_functions_get_a_function_call() -> None:
    functions = {"functions": [tool["function"] for tool in TOOLS]}
    message = (choice := ask_chat(functions, *CALLING).choices[0]).message
    assert choice.finish_reason == "function_call"
    assert message.tool_calls is None
    assert message.function_call is not None
    assert (message.function_call.name, message.function_call.arguments) == ("f", '{"x":1}')
    chunks = stream_chat(functions, *CALLING)
    calls = [
        delta.function_call.model_dump(exclude_unset=True)
        for chunk in chunks
        if (delta := chunk.choices[0].delta).function_call
    ]
    assert calls == [
        {"name": "f", "arguments": ""},
        {"arguments": '{"x":'},
        {"arguments": "1}"},
    ]
    assert chunks[-1].choices[0].finish_reason == "function_call"
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)


def test_the_tier_that_served_a_request_that_asks_for_one() -> None:
    assert ask_chat({"service_tier": "flex"}).service_tier == "default"
    (first, *_) = stream_chat({"service_tier": "auto"}, *HELLO)
    assert first.service_tier == "default"


def test_logprobs_of_a_stream_are_finite() -> None:
    never = TokenLogprob("Ho", b"\xff", float("-inf"))
    entry = TokenLogprob("He", b"He", -0.5, (never,))
    deltas = [(0, TextDelta("", (entry,)))], [(0, TextDelta("He", (entry,)))], HELLO[-1]
    chunks = stream_chat({"logprobs": True, "top_logprobs": 1}, *deltas)
    listed = [chunk.choices[0].logprobs for chunk in chunks]
    assert [logprobs is not None for logprobs in listed] == [False, True, True, False]
    assert listed[1] is not None
    assert listed[1].content is not None
    (token,) = listed[1].content
    assert (token.token, token.logprob, token.bytes) == ("He", -0.5, [72, 101])
    (top,) = token.top_logprobs
    assert (top.logprob, top.bytes) == (-9999.0, [255])
    whole = ask_chat({"logprobs": True, "top_logprobs": 1}, *deltas).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    assert whole.content[0].top_logprobs[0].logprob == -9999.0


@pytest.mark.parametrize("n", [1, 3])
def test_roles_come_first_and_usage_last_and_whole(n: int) -> None:
    usage = Usage(7, 2, 3, 1)
    step = [(i, TextDelta("x")) for i in range(n)]
    end = [(i, TextDelta("", finish_reason="stop", usage=usage)) for i in range(n)]
    body = {"n": n, "stream_options": {"include_usage": True}}
    *chunks, last = stream_chat(body, step, [], end)
    assert [c.choices[0].delta.role for c in chunks[:n]] == ["assistant"] * n
    assert [c.choices[0].index for c in chunks[:n]] == list(range(n))
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.model_dump(exclude_unset=True) == {
        "prompt_tokens": 7,
        "completion_tokens": 2 * n,
        "total_tokens": 7 + 2 * n,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": n},
    }


def test_chunks_are_json_whatever_the_text() -> None:
    text = 'a"\\\n\u2028\x00ü\U0001f600'
    response = post(
        script([(0, TextDelta(text))], HELLO[-1]), "/v1/chat/completions", CHAT | {"stream": True}
    )
    chunk = ChatCompletionChunk.model_validate_json(events_of(response)[1], strict=True)
    assert chunk.choices[0].delta.content == text


PIECES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def replies(draw: st.DrawFn) -> list[TextDelta]:
    """Deltas of one choice: texts and reasoning at will, then calls one after the other."""
    deltas = [
        TextDelta(draw(PIECES), reasoning=draw(PIECES)) for _ in range(draw(st.integers(0, 3)))
    ]
    calls = draw(st.integers(0, 3))
    for index in range(calls):
        first = ToolCallDelta(index, draw(PIECES), id=f"call_{index}", name="f")
        rest = [ToolCallDelta(index, draw(PIECES)) for _ in range(draw(st.integers(0, 2)))]
        deltas += [TextDelta("", tool_calls=(piece,)) for piece in (first, *rest)]
    reason: Any = "tool_calls" if calls else "stop"
    return [*deltas, TextDelta("", finish_reason=reason, usage=Usage(3, 4))]


@settings(deadline=None, max_examples=50)
@given(st.lists(replies(), min_size=1, max_size=3))
def test_a_stream_adds_up_to_the_whole_completion(choices: list[list[TextDelta]]) -> None:
    steps = [
        [(index, deltas[step]) for index, deltas in enumerate(choices) if step < len(deltas)]
        for step in range(max(map(len, choices)))
    ]
    body = {"n": len(choices), "tools": TOOLS}
    whole = ask_chat(body, *steps)
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in stream_chat(body, *steps):
        state.handle_chunk(chunk)
    streamed = state.current_completion_snapshot
    for one, other in zip(whole.choices, streamed.choices, strict=True):
        assert one.finish_reason == other.finish_reason
        assert (one.message.content or "") == (other.message.content or "")
        assert said_by_calls(one.message) == said_by_calls(other.message)
        reasoning = (one.message.model_extra or {}).get("reasoning")
        assert reasoning == (other.message.model_extra or {}).get("reasoning")


def said_by_calls(message: Any) -> list[tuple[str, str, str]]:
    calls = message.tool_calls or []
    return [(call.id, call.function.name, call.function.arguments) for call in calls]
