"""Which tokens a compiled grammar allows, and what the compiler keeps."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.errors import InvalidInputError, ModelError
from models.structured.compiler import GrammarCompiler
from models.structured.constraint import TokenConstraint
from models.toy.generator import ByteVocabulary
from tests.unit.structured_samples import (
    CONTROL,
    END,
    FIRST_CONTROL,
    OTHER_END,
    VOCABULARY,
    SmallVocabulary,
    allowed,
    allowed_text,
    row,
    write,
    write_at_random,
)

COMPILER = GrammarCompiler(VOCABULARY)
ANY_TEXT = "start: /(?s:.*)/"
CONTROLS = set(range(FIRST_CONTROL, VOCABULARY.size))


def compiled(grammar: str) -> TokenConstraint:
    return COMPILER.compile(grammar, "response_format")


def test_forbidden_logits_become_minus_infinity_and_others_stay() -> None:
    logits = np.arange(VOCABULARY.size, dtype=np.float32)
    compiled('start: "true" | "tru"').mask(logits)
    fitting = [t for t, piece in enumerate(VOCABULARY.pieces) if piece in (b"t", b"true")]
    assert np.flatnonzero(np.isfinite(logits)).tolist() == sorted(fitting)
    assert logits[fitting].tolist() == [float(t) for t in fitting]
    assert np.isneginf(np.delete(logits, fitting)).all()


def test_a_longer_row_is_padding() -> None:
    logits = row(VOCABULARY.size + 77)
    compiled(ANY_TEXT).mask(logits)
    assert np.isneginf(logits[VOCABULARY.size :]).all()
    assert logits[ord("a")] == 0


def test_a_shorter_row_has_fewer_tokens() -> None:
    logits = row(100)
    compiled('start: "a" | "é"').mask(logits)
    assert np.flatnonzero(logits == 0).tolist() == [ord("a")]


def test_each_step_masks_anew() -> None:
    state = compiled('start: "ab"')
    assert allowed(state) == {ord("a")}
    assert allowed(write(state, "a")) == {ord("b")}


def test_any_text_allows_no_control_tokens_but_the_ends() -> None:
    assert allowed(compiled(ANY_TEXT)) & CONTROLS == {END, OTHER_END}
    assert allowed(write(compiled(ANY_TEXT), "some text")) & CONTROLS == {END, OTHER_END}


def test_end_tokens_are_allowed_where_the_output_may_end() -> None:
    state = compiled("start: /[0-9]{2,4}/")
    assert not allowed(state) & CONTROLS
    assert not allowed(write(state, "1")) & CONTROLS
    assert allowed(write(state, "2")) & CONTROLS == {END, OTHER_END}
    assert b"12" in allowed_text(state)


@pytest.mark.parametrize("end", [END, OTHER_END])
def test_any_end_token_ends(end: int) -> None:
    state = write(compiled("start: /[0-9]+/"), "12")
    assert not state.finished
    state.accept(end)
    assert state.finished


def test_a_control_token_that_the_grammar_names_is_allowed_there_only() -> None:
    state = compiled(f'start: "a" <[{CONTROL}]> "b"')
    assert allowed(state) == {ord("a")}
    assert allowed(write(state, "a")) == {CONTROL}
    state.accept(CONTROL)
    assert allowed(state) == {ord("b")}


def test_the_text_by_which_a_control_token_is_known_is_not_the_token() -> None:
    state = write(compiled(ANY_TEXT), f"<|control-{CONTROL}|>")
    assert allowed(state) & CONTROLS == {END, OTHER_END}


def test_bytes_that_complete_no_character_are_not_allowed() -> None:
    state = compiled(ANY_TEXT)
    assert not {0x80, 0xBF, 0xC0, 0xF8, 0xFF} & allowed(state)
    state.accept(0xF0)
    assert {piece[0] for piece in allowed_text(state)} == {*range(0x90, 0xC0)}


def test_a_character_may_be_written_in_parts() -> None:
    first, second = (VOCABULARY.pieces.index(p) for p in ("😀".encode()[:2], "😀".encode()[2:]))
    state = compiled('start: "😀"')
    state.accept(first)
    state.accept(second)
    assert state.finished


def test_it_is_finished_as_soon_as_nothing_may_follow() -> None:
    state = compiled('start: %json {"type": "object", "additionalProperties": false}')
    assert not write(state, "{").finished
    assert write(state, "}").finished


def test_after_the_finish_only_end_tokens_are_allowed() -> None:
    state = write(compiled('start: "a"'), "a")
    assert allowed(state) == {END, OTHER_END}
    state.accept(END)
    assert state.finished


@pytest.mark.parametrize("token", [ord("b"), CONTROL, END])
def test_accepting_what_is_forbidden_fails(token: int) -> None:
    state = compiled('start: "ac"')
    with pytest.raises(ModelError, match="any further"):
        state.accept(token)


def test_a_constraint_that_failed_stays_failed() -> None:
    state = compiled('start: "ac"')
    with pytest.raises(ModelError):
        state.accept(ord("b"))
    with pytest.raises(ModelError):
        state.mask(row())


def test_constraints_of_one_grammar_are_independent() -> None:
    first, second = compiled('start: "ab"'), compiled('start: "ab"')
    write(first, "a")
    assert allowed(first) == {ord("b")}
    assert allowed(second) == {ord("a")}


class EndlessVocabulary(SmallVocabulary):
    """No token ends a text."""

    end_tokens = frozenset[int]()


def test_a_vocabulary_without_an_end_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no token that ends") as caught:
        GrammarCompiler(EndlessVocabulary()).compile(ANY_TEXT, "response_format")
    assert caught.value.param == "response_format"


def test_a_grammar_that_is_wrong_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        COMPILER.compile("start: nothing", "tools")
    assert caught.value.param == "tools"


class CountingVocabulary(SmallVocabulary):
    """Counts how often its pieces are read."""

    def __init__(self) -> None:
        self.reads = 0
        self.lock = threading.Lock()

    @property
    def pieces(self) -> Sequence[bytes]:  # type: ignore[override]
        with self.lock:
            self.reads += 1
        return VOCABULARY.pieces


def test_the_vocabulary_is_prepared_once_and_not_before_it_is_needed() -> None:
    vocabulary = CountingVocabulary()
    compiler = GrammarCompiler(vocabulary)
    assert vocabulary.reads == 0
    for text in "abc":
        compiler.compile(f'start: "{text}"', "response_format")
    assert vocabulary.reads == 1


def test_threads_compile_at_the_same_time() -> None:
    compiler = GrammarCompiler(VOCABULARY)

    def outputs(seed: int) -> str:
        schema = f'{{"enum": ["{seed % 6}", "x{seed % 6}"]}}'
        return write_at_random(compiler.compile(f"start: %json {schema}", "schema"), seed)

    with ThreadPoolExecutor(8) as threads:
        written = list(threads.map(outputs, range(200)))
    assert all(text in (f'"{i % 6}"', f'"x{i % 6}"') for i, text in enumerate(written))


def test_what_one_thread_compiled_another_may_use() -> None:
    with ThreadPoolExecutor(1) as thread:
        state = thread.submit(compiled, 'start: "ab"').result()
    assert write(state, "ab").finished


def test_a_vocabulary_of_all_bytes_will_do() -> None:
    vocabulary = ByteVocabulary()
    state = GrammarCompiler(vocabulary).compile(ANY_TEXT, "response_format")
    logits = np.zeros(vocabulary.size, np.float32)
    state.mask(logits)
    expected = {*range(0x80), *range(0xC2, 0xF5), *vocabulary.end_tokens}
    assert set(np.flatnonzero(logits == 0).tolist()) == expected
