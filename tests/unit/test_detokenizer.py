"""Whole characters only, and nothing of a stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.continuous_batching.detokenizer import Detokenizer
from models.types.generation import TokenLogprob


def pieces_of(text: str, size: int) -> list[bytes]:
    data = text.encode()
    return [data[i : i + size] for i in range(0, len(data), size)]


def feed(detokenizer: Detokenizer, pieces: list[bytes]) -> list[str]:
    """What every push emits, up to the stop string, then what a flush emits."""
    texts = []
    for piece in pieces:
        texts.append(detokenizer.push(piece).text)
        if detokenizer.stopped:
            return texts
    return [*texts, detokenizer.flush().text]


def logprob(piece: bytes) -> TokenLogprob:
    return TokenLogprob(piece.decode("utf-8", "replace"), piece, -1.0)


def test_a_character_waits_for_its_last_byte() -> None:
    assert feed(Detokenizer(), pieces_of("aé🙂", 1)) == ["a", "", "é", "", "", "", "🙂", ""]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert "".join(feed(Detokenizer(), [b"a", b"\xff", b"b"])) == "a\ufffdb"


def test_an_incomplete_character_at_the_end_is_dropped() -> None:
    assert feed(Detokenizer(), [b"a", "é".encode()[:1]]) == ["a", "", ""]


def test_a_stop_string_across_tokens_is_not_leaked() -> None:
    detokenizer = Detokenizer(("STOP",))
    assert feed(detokenizer, [b"go ", b"S", b"TO", b"P and more"]) == ["go ", "", "", ""]
    assert detokenizer.stopped


def test_text_that_only_began_like_a_stop_string_is_released() -> None:
    detokenizer = Detokenizer(("STOP",))
    assert feed(detokenizer, [b"ST", b"OR", b"M"]) == ["", "STOR", "M", ""]
    assert not detokenizer.stopped


def test_what_was_held_back_comes_with_the_flush() -> None:
    assert feed(Detokenizer(("\n\n",)), [b"a\n"]) == ["a", "\n"]


def test_the_earliest_stop_string_counts() -> None:
    detokenizer = Detokenizer(("late", "early"))
    assert feed(detokenizer, [b"x early late"]) == ["x "]


def test_overlapping_beginnings_keep_the_longest() -> None:
    assert feed(Detokenizer(("abc", "bcd")), [b"ab", b"cx"]) == ["", ""]
    assert feed(Detokenizer(("abd", "bcd")), [b"ab", b"cx"]) == ["", "abcx", ""]


def test_logprobs_come_with_the_text_they_complete() -> None:
    detokenizer = Detokenizer(("STOP",))
    first = detokenizer.push(b"a S", logprob(b"a S"))
    assert (first.text, first.logprobs) == ("a ", ())
    second = detokenizer.push(b"un", logprob(b"un"))
    assert (second.text, [item.raw for item in second.logprobs]) == ("Sun", [b"a S", b"un"])


def test_tokens_of_the_stop_string_have_no_logprobs() -> None:
    detokenizer = Detokenizer(("STOP",))
    assert [item.raw for item in detokenizer.push(b"a", logprob(b"a")).logprobs] == [b"a"]
    assert detokenizer.push(b"ST", logprob(b"ST")).logprobs == ()
    last = detokenizer.push(b"OP", logprob(b"OP"))
    assert (last.text, last.logprobs) == ("", ())


def test_a_token_that_ends_in_the_stop_string_keeps_its_logprob() -> None:
    last = Detokenizer(("STOP",)).push(b"xSTOP", logprob(b"xSTOP"))
    assert (last.text, [item.raw for item in last.logprobs]) == ("x", [b"xSTOP"])


def test_tokens_of_a_split_character_share_its_delta() -> None:
    detokenizer = Detokenizer()
    a, b = pieces_of("é", 1)
    assert detokenizer.push(a, logprob(a)).text == ""
    assert [item.raw for item in detokenizer.push(b, logprob(b)).logprobs] == [a, b]


@given(
    st.text(alphabet="abé🙂", max_size=30),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
    st.integers(1, 5),
)
def test_any_cut_into_tokens_gives_the_text_before_the_first_stop_string(
    text: str, stop: list[str], size: int
) -> None:
    emitted = "".join(feed(Detokenizer(tuple(stop)), pieces_of(text, size)))
    assert text.startswith(emitted)
    assert not any(s in emitted for s in stop)
    if any(s in text for s in stop):
        assert any(text.startswith(s, len(emitted)) for s in stop)
    else:
        assert emitted == text
