"""Calls of tools through a whole engine: the toy answers with what it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from models.toy.generator import ToyGenerator
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    Message,
    SamplingParams,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
)
from tests.generators import Completion, Recorder

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = (Tool("weather", "The weather.", json.dumps(SCHEMA)), Tool("now"))
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def engine(recorder: Recorder) -> Iterator[ToyGenerator]:
    engine = ToyGenerator(recorder.listen)
    yield engine
    engine.close()


def run(engine: ToyGenerator, recorder: Recorder, text: str, **prompt: Any) -> Completion:
    params = SamplingParams(temperature=prompt.pop("temperature", 0.0), max_tokens=400, seed=1)
    chat = ChatPrompt((Message("user", text),), **prompt)
    engine.add("one", GenerationRequest(chat, params))
    return recorder.take("one")


def calls(completion: Completion) -> list[tuple[str | None, str]]:
    deltas: dict[int, list[ToolCallDelta]] = {}
    for item in completion.deltas:
        for delta in item.tool_calls:
            deltas.setdefault(delta.index, []).append(delta)
    return [(found[0].name, "".join(d.arguments for d in found)) for found in deltas.values()]


def test_a_call_is_not_text(engine: ToyGenerator, recorder: Recorder) -> None:
    completion = run(engine, recorder, f"Let me see. {CALL}", tools=TOOLS)
    assert completion.text == "Let me see."
    assert calls(completion) == [("weather", '{"city": "Bern"}')]
    assert completion.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "prompt", [{}, {"tools": TOOLS, "tool_choice": ToolChoice("none")}], ids=["no tools", "none"]
)
def test_without_tools_it_is_text(
    engine: ToyGenerator, recorder: Recorder, prompt: dict[str, Any]
) -> None:
    completion = run(engine, recorder, CALL, **prompt)
    assert completion.text == CALL
    assert completion.finish_reason == "stop"


def test_a_required_call_is_made_whatever_the_model_likes(
    engine: ToyGenerator, recorder: Recorder
) -> None:
    completion = run(
        engine,
        recorder,
        "It rains.",
        tools=TOOLS,
        tool_choice=ToolChoice("required", ("weather",)),
        parallel_tool_calls=False,
        temperature=2.0,
    )
    [(name, arguments)] = calls(completion)
    assert name == "weather"
    assert json.loads(arguments)["city"] in ("Bern", "Oslo")
    assert completion.text == ""
    assert completion.finish_reason == "tool_calls"


def test_tools_calls_and_results_are_rendered(engine: ToyGenerator) -> None:
    messages = (
        Message("user", "Rain?"),
        Message("assistant", tool_calls=(ToolCall("1", "now", '{"a": 1}'),)),
        Message("tool", "Noon.", tool_call_id="1"),
    )
    rendered = engine.render(ChatPrompt(messages, tools=TOOLS[1:]))
    assert rendered == (
        '<|im_start|>system\n<tools>[{"type": "function", "function": {"name": "now", '
        '"description": "", "parameters": {"type": "object", "properties": {}}}}]</tools><|im_end|>'
        "<|im_start|>user\nRain?<|im_end|><|im_start|>assistant\n"
        '<tool_call>{"name": "now", "arguments": {"a": 1}}</tool_call><|im_end|>'
        "<|im_start|>tool\nNoon.<|im_end|><|im_start|>assistant\n"
    )
