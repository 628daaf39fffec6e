"""Fields of a completion request: echo, suffix, best_of, and what they cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types import Completion
from openai.types.completion_create_params import CompletionCreateParamsBase

from deployments.ingress.routes.completions import CompletionBody
from models.types.common import Usage
from models.types.generation import InfillPrompt, OutputFormat, TextDelta, TokenLogprob
from tests.scripted_generation import (
    COMPLETION,
    HELLO,
    completion_chunk,
    completion_requests,
    events_of,
    post,
    refused,
    script,
    sent_to,
)

FIRST = TokenLogprob("ab", b"ab", None)
SECOND = TokenLogprob(" c", b" c", -1.0, (TokenLogprob(" d", b" d", -0.5),))
THIRD = TokenLogprob("!", b"!", -0.25, (TokenLogprob("!", b"!", -0.25),))
ECHOED = (
    [(0, TextDelta("ab c", (FIRST, SECOND)))],
    [(0, TextDelta("!", (THIRD,)))],
    [(0, TextDelta("", finish_reason="length", usage=Usage(2, 1)))],
)


def refusal(**fields: Any) -> str | None:
    return refused("/v1/completions", COMPLETION | fields)[0]


def test_no_field_of_openais_is_unknown() -> None:
    fields = set(CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert fields <= set(CompletionBody.model_fields)


def test_echo_with_logprobs() -> None:
    (request,) = completion_requests(echo=True, max_tokens=0, logprobs=1)
    assert (request.echo, request.sampling.max_tokens) == (True, 0)
    body = COMPLETION | {"echo": True, "logprobs": 1}
    (choice,) = post(script(*ECHOED), "/v1/completions", body).json()["choices"]
    assert choice["text"] == "ab c!"
    assert choice["logprobs"] == {
        "tokens": ["ab", " c", "!"],
        "token_logprobs": [None, -1.0, -0.25],
        "top_logprobs": [None, {" d": -0.5, " c": -1.0}, {"!": -0.25}],
        "text_offset": [0, 2, 4],
    }


def test_offsets_go_on_through_a_stream() -> None:
    body = COMPLETION | {"echo": True, "logprobs": 1, "stream": True}
    events = events_of(post(script(*ECHOED), "/v1/completions", body))
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert [choice["text"] for choice in choices] == ["ab c", "!", ""]
    offsets = [choice["logprobs"] and choice["logprobs"]["text_offset"] for choice in choices]
    assert offsets == [[0, 2], [4], None]


def test_the_chosen_token_is_told_where_no_others_are_wanted() -> None:
    body = COMPLETION | {"echo": True, "logprobs": 0}
    bare = replace(SECOND, top=())
    last = TextDelta("", finish_reason="stop", usage=Usage(2, 1))
    said = [(0, TextDelta(" c", (bare,))), (0, last)]
    (choice,) = post(script(said), "/v1/completions", body).json()["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{" c": -1.0}]


def test_tokens_that_share_a_character_begin_where_it_does() -> None:
    raw = "é👍!".encode()
    parts = [raw[:2], raw[2:4], raw[4:6], raw[6:]]
    entries = [TokenLogprob(part.decode("utf-8", "replace"), part, -1.0) for part in parts]
    last = TextDelta("", finish_reason="stop", usage=Usage(1, 4))
    whole = [[(0, TextDelta("é👍!", tuple(entries))), (0, last)]]
    # "!" is held back for a moment; its entry comes with what comes after
    pieces = [
        [(0, TextDelta("é", tuple(entries[:1])))],
        [(0, TextDelta("👍", tuple(entries[1:2])))],
        [(0, TextDelta("!", tuple(entries[2:])))],
        [(0, last)],
    ]
    body = COMPLETION | {"logprobs": 0}
    (choice,) = post(script(*whole), "/v1/completions", body).json()["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 2]
    events = events_of(post(script(*pieces), "/v1/completions", body | {"stream": True}))
    listed = [json.loads(event)["choices"][0]["logprobs"] for event in events[:-1]]
    assert [at for some in listed if some for at in some["text_offset"]] == [0, 1, 1, 2]


def test_suffix() -> None:
    (request,) = completion_requests(prompt="def f(", suffix="):")
    assert request.prompt == InfillPrompt("def f(", "):")
    (request,) = completion_requests(prompt="", suffix=")")
    assert request.prompt == InfillPrompt("", ")")
    assert completion_requests(suffix="") == completion_requests()


def candidate(index: int, text: str, *logprobs: float) -> list[tuple[int, TextDelta]]:
    entries = tuple(TokenLogprob(text, text.encode(), logprob) for logprob in logprobs)
    usage = Usage(5, len(logprobs), 2)
    return [(index, TextDelta(text, entries, finish_reason="stop", usage=usage))]


CANDIDATES = (
    candidate(0, "worst", -3.0),
    candidate(1, "second", -0.5, -0.7),
    candidate(2, "best", -0.4, -0.4, -0.4),
)


def test_the_best_by_mean_logprob_are_answered_and_all_are_counted() -> None:
    replicas = script(*CANDIDATES)
    body = COMPLETION | {"best_of": 3, "n": 2}
    completion = Completion.model_validate_json(
        post(replicas, "/v1/completions", body).content, strict=True
    )
    assert [(c.index, c.text) for c in completion.choices] == [(0, "best"), (1, "second")]
    assert all(choice.logprobs is None for choice in completion.choices)
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 6)
    (request,) = sent_to(replicas)
    assert (request.n, request.sampling.logprobs) == (3, 0)


def test_each_prompt_has_its_own_best() -> None:
    steps = (*CANDIDATES[:2], candidate(2, "better", -0.1), candidate(3, "worse", -0.2))
    body = COMPLETION | {"prompt": ["a", "b"], "best_of": 2, "logprobs": 0}
    completion = Completion.model_validate_json(
        post(script(*steps), "/v1/completions", body).content, strict=True
    )
    assert [choice.text for choice in completion.choices] == ["second", "better"]
    assert completion.choices[1].logprobs is not None
    assert completion.choices[1].logprobs.token_logprobs == [-0.1]


def test_an_echoed_prompt_says_nothing_of_a_candidate() -> None:
    """A likely prompt must not make a short bad answer look better than a long good one."""
    prompt = (FIRST, TokenLogprob("x", b"x", -0.001), *[THIRD] * 3)
    bad = TextDelta("x", (*prompt, SECOND), finish_reason="stop", usage=Usage(5, 1))
    good = TextDelta(
        "y",
        (*prompt, *[TokenLogprob("y", b"y", -0.9)] * 50),
        finish_reason="stop",
        usage=Usage(5, 50),
    )
    body = COMPLETION | {"best_of": 2, "echo": True}
    reply = post(script([(0, bad), (1, good)]), "/v1/completions", body).json()
    assert [choice["text"] for choice in reply["choices"]] == ["y"]


def test_best_of_as_many_as_are_answered_is_no_ranking() -> None:
    (request,) = completion_requests(best_of=2, n=2)
    assert (request.n, request.sampling.logprobs) == (2, None)
    (request,) = completion_requests(best_of=1, stream=True)
    assert request.n == 1


def test_formats() -> None:
    requests = completion_requests(prompt=["a", "b"], guided_regex="a+")
    expected = OutputFormat("regex", "a+", "guided_regex")
    assert [request.output_format for request in requests] == [expected] * 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 9}, "best_of"),
        ({"prompt": ["x"] * 65, "best_of": 2}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "x", "echo": True}, "echo"),
        ({"suffix": "x", "prompt": [1, 2]}, "suffix"),
        ({"suffix": "x" * 1_000_001}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"user": 5}, "user"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_fields_that_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == param


def test_a_finish_reason_is_null_until_the_end() -> None:
    events = events_of(post(script(*HELLO), "/v1/completions", COMPLETION | {"stream": True}))
    for event in events[:-1]:
        completion_chunk(event)
    reasons = [json.loads(event)["choices"][0]["finish_reason"] for event in events[:-1]]
    assert reasons == [None, None, "stop"]


def test_usage_of_several_prompts_counts_each_once() -> None:
    end = [(i, TextDelta("x", finish_reason="stop", usage=Usage(3 + i // 2, 1))) for i in range(4)]
    body = COMPLETION | {"prompt": ["a", "b"], "n": 2}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    whole = post(script(end), "/v1/completions", body).json()["usage"]
    events = events_of(post(script(end), "/v1/completions", body | options))
    assert json.loads(events[-2])["usage"] == whole
    assert (whole["prompt_tokens"], whole["completion_tokens"]) == (7, 4)
