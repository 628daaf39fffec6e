"""What a model that is good enough does with tools, schemas and gaps. Opt in: `make test-quality`.

Needs `python -m weights fetch qwen2.5-coder-1.5b-instruct` (1.1 GB) and 3 GB of memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from models.llama_cpp.engine import LlamaCppGenerator
from models.types.generation import (
    ChatPrompt,
    GenerationRequest,
    InfillPrompt,
    Message,
    OutputFormat,
    Tool,
    ToolCall,
    ToolChoice,
)
from tests.generators import Completion, Recorder, calls_of, chat, request_of

WEATHER = Tool(
    "get_weather",
    "The current weather of a city.",
    json.dumps(
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city"],
            "additionalProperties": False,
        }
    ),
)
SUM = Tool(
    "add",
    "Adds two numbers.",
    json.dumps(
        {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
    ),
)
INVOICE = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "total": {"type": "number"},
        "currency": {"enum": ["EUR", "USD"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "quantity": {"type": "integer"}},
                "required": ["name", "quantity"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["number", "total", "currency", "items"],
    "additionalProperties": False,
}

Ask = Callable[..., Completion]


@pytest.fixture(scope="module")
def ask(starter_weights: Callable[[str], Path]) -> Iterator[Ask]:
    recorder = Recorder(patience=600)
    engine = LlamaCppGenerator(
        starter_weights("qwen2.5-coder-1.5b-instruct"),
        recorder.listen,
        n_ctx=4096,
        max_sequences=4,
        n_threads=2,
    )

    def complete(prompt: Any, **fields: Any) -> Completion:
        sampling = request_of("", temperature=0, max_tokens=200).sampling
        engine.add("one", GenerationRequest(prompt, sampling, **fields))
        completion = recorder.take("one")
        assert completion.error is None
        return completion

    yield complete
    engine.close()


def with_tools(prompt: ChatPrompt, **fields: Any) -> ChatPrompt:
    return replace(prompt, tools=(WEATHER, SUM), **fields)


def test_it_calls_the_right_tool(ask: Ask) -> None:
    completion = ask(with_tools(chat("What is the weather in Oslo, in celsius?")))
    (call,) = calls_of(completion)
    assert completion.finish_reason == "tool_calls"
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "Oslo", "unit": "celsius"}


def test_it_answers_from_what_a_tool_said(ask: Ask) -> None:
    call = ToolCall("call_1", "get_weather", '{"city": "Oslo", "unit": "celsius"}')
    messages = (
        Message("user", "What is the weather in Oslo?"),
        Message("assistant", tool_calls=(call,)),
        Message("tool", '{"temperature": 7, "sky": "heavy rain"}', tool_call_id="call_1"),
        Message("user", "So how many degrees is it?"),
    )
    prompt = with_tools(ChatPrompt(messages), tool_choice=ToolChoice("none"))
    degrees = OutputFormat("choice", json.dumps(["21", "-3", "7", "12"]))
    assert ask(prompt, output_format=degrees).text == "7"


def test_it_calls_a_tool_because_it_must(ask: Ask) -> None:
    prompt = with_tools(chat("Hello!"), tool_choice=ToolChoice("required"))
    completion = ask(replace(prompt, parallel_tool_calls=False))
    (call,) = calls_of(completion)
    schemas = {tool.name: json.loads(tool.parameters) for tool in (WEATHER, SUM)}
    jsonschema.validate(json.loads(call.arguments), schemas[call.name])


def test_it_extracts_into_a_schema(ask: Ask) -> None:
    text = "Invoice R-2041: 3 lamps and 2 chairs, in all 189.50 euros."
    output = OutputFormat("json_schema", json.dumps(INVOICE))
    completion = ask(chat(f"Extract the invoice as JSON.\n\n{text}"), output_format=output)
    found = json.loads(completion.text)
    jsonschema.validate(found, INVOICE)
    assert found["number"] == "R-2041"
    assert (found["total"], found["currency"]) == (189.5, "EUR")
    assert [item["quantity"] for item in found["items"]] == [3, 2]


def test_it_chooses_a_label(ask: Ask) -> None:
    output = OutputFormat("choice", json.dumps(["positive", "negative"]))
    for review, expected in (
        ("I love this lamp, it is perfect.", "positive"),
        ("Broken after a day. Awful.", "negative"),
    ):
        prompt = chat(f"Is this review positive or negative?\n\n{review}")
        assert ask(prompt, output_format=output).text == expected


def test_it_fills_a_gap(ask: Ask) -> None:
    gap = InfillPrompt("def add(a, b):\n    return ", "\n\nprint(add(2, 3))\n")
    assert ask(gap).text.strip().startswith("a + b")
