"""From tokens to deltas: openings, reasoning limits, tool calls, ends."""

from __future__ import annotations

from models.chat.reply import ReplyPart
from models.continuous_batching.completion import Completion, ReasoningLimit
from models.types.common import Usage
from models.types.generation import TextDelta, TokenLogprob, ToolCallDelta

PIECES = (*(bytes([byte]) for byte in range(256)), b"")
CONTROL = 256
USAGE = Usage(3)


class Parser:
    """Lower case is reasoning until the first "/", "!" is a tool call, the rest is content."""

    def __init__(self) -> None:
        self.in_reasoning = True
        self.called_tools = False
        self.held = ""

    def push(self, text: str) -> ReplyPart:
        if text == "/":
            self.in_reasoning = False
            return ReplyPart()
        if text == "!":
            self.called_tools = True
            return ReplyPart(tool_calls=(ToolCallDelta(0, id="1", name="f"),))
        if text == "?":
            self.held = "?"
            return ReplyPart()
        return ReplyPart(reasoning=text) if self.in_reasoning else ReplyPart(text)

    def finish(self) -> ReplyPart:
        return ReplyPart(self.held)


def write(completion: Completion, text: str) -> list[TextDelta]:
    deltas = [completion.push(token, None) for token in text.encode()]
    return [delta for delta in deltas if delta is not None]


def test_text_goes_through() -> None:
    completion = Completion(PIECES)
    assert [delta.text for delta in write(completion, "ab")] == ["a", "b"]
    last = completion.finish(None, "stop", USAGE)
    assert (last.text, last.finish_reason, last.usage) == ("", "stop", USAGE)


def test_the_last_token_comes_with_the_end() -> None:
    completion = Completion(PIECES, stop=("xyz",))
    assert write(completion, "x") == []
    last = completion.finish(completion.push(ord("y"), None), "length", USAGE)
    assert (last.text, last.finish_reason) == ("xy", "length")


def test_stop_strings_end_it() -> None:
    completion = Completion(PIECES, stop=("bc",), min_tokens=3)
    write(completion, "abc")
    assert not completion.stopped
    assert [delta.text for delta in write(completion, "bc")] == []
    assert completion.stopped


def test_an_opening_comes_with_the_first_delta_only() -> None:
    score = TokenLogprob("P", b"P", None)
    completion = Completion(PIECES, opening="Prompt ")
    completion.opening_logprobs.append(score)
    first, second = write(completion, "ab")
    assert (first.text, first.logprobs) == ("Prompt a", (score,))
    assert second == TextDelta("b")


def test_an_opening_without_any_token() -> None:
    last = Completion(PIECES, opening="Prompt").finish(None, "length", USAGE)
    assert last.text == "Prompt"


def test_reasoning_is_apart_and_counted() -> None:
    completion = Completion(PIECES, parser=Parser())
    deltas = write(completion, "ab/c")
    assert [(d.reasoning, d.text) for d in deltas] == [("a", ""), ("b", ""), ("", "c")]
    last = completion.finish(None, "stop", USAGE)
    assert last.usage == Usage(3, reasoning_tokens=2)


def test_reasoning_ends_when_its_budget_is_used_up() -> None:
    completion = Completion(PIECES, parser=Parser(), limit=ReasoningLimit(2, (ord("/"), ord("."))))
    completion.check_limit()
    write(completion, "a")
    assert completion.next_forced() is None
    write(completion, "b")
    assert [completion.next_forced() for _ in range(3)] == [ord("/"), ord("."), None]
    write(completion, "/.c")
    assert completion.next_forced() is None


def test_no_budget_at_all_ends_reasoning_before_it_begins() -> None:
    completion = Completion(PIECES, parser=Parser(), limit=ReasoningLimit(0, (ord("/"),)))
    completion.check_limit()
    assert completion.next_forced() == ord("/")


def test_reasoning_is_not_broken_off_within_a_character() -> None:
    completion = Completion(PIECES, parser=Parser(), limit=ReasoningLimit(1, (ord("/"),)))
    first, last = "é".encode()
    completion.push(first, None)
    assert completion.next_forced() is None
    assert completion.push(last, None) == TextDelta("", reasoning="é")
    assert completion.next_forced() == ord("/")


def test_a_budget_means_nothing_after_the_reasoning() -> None:
    completion = Completion(PIECES, parser=Parser(), limit=ReasoningLimit(2, (ord("/"),)))
    write(completion, "a/bcd")
    assert completion.next_forced() is None


def test_tool_calls_decide_the_reason_of_the_end() -> None:
    for reason, expected in (("stop", "tool_calls"), ("length", "length")):
        completion = Completion(PIECES, parser=Parser())
        (delta,) = write(completion, "!")
        assert delta.tool_calls == (ToolCallDelta(0, id="1", name="f"),)
        assert completion.finish(None, reason, USAGE).finish_reason == expected


def test_what_the_parser_held_back_comes_with_the_end() -> None:
    completion = Completion(PIECES, parser=Parser())
    write(completion, "/?")
    assert completion.finish(None, "stop", USAGE).text == "?"


def test_control_tokens_are_seen_by_the_parser_alone() -> None:
    completion = Completion(PIECES, visible={CONTROL: b"/"}, parser=Parser())
    completion.push(CONTROL, None)
    assert [delta.text for delta in write(completion, "a")] == ["a"]
    assert Completion(PIECES).push(CONTROL, None) is None
