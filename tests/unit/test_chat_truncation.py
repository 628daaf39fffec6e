"""Which turns of a long chat can go."""

from __future__ import annotations

from models.chat.truncation import turn_starts, without_turns_before
from models.types.generation import ChatPrompt, Message


def messages(roles: str) -> tuple[Message, ...]:
    names = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
    return tuple(Message(names[role], f"{i}") for i, role in enumerate(roles))


def test_a_conversation_begins_with_a_user() -> None:
    assert turn_starts(messages("suauau")) == [1, 3, 5]
    assert turn_starts(messages("uaua")) == [0, 2]


def test_all_instructions_stay() -> None:
    assert turn_starts(messages("sduau")) == [2, 4]


def test_a_tools_answer_stays_with_its_call() -> None:
    assert turn_starts(messages("uatauatta")) == [0, 4]


def test_without_a_second_user_message_nothing_can_go() -> None:
    assert turn_starts(messages("sa")) == [1]
    assert turn_starts(messages("u")) == [0]
    assert turn_starts(messages("s")) == [1]


def test_what_is_left() -> None:
    kept = without_turns_before(ChatPrompt(messages("suaua"), parallel_tool_calls=False), 3)
    assert [message.content for message in kept.messages] == ["0", "3", "4"]
    assert not kept.parallel_tool_calls
