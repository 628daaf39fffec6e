"""The steps of document models: structure in tokens, windows of words, spans, fields."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import transformers
from transformers import DonutProcessor

from models.document_models.answer_spans import SpanScores, best_answer
from models.document_models.donut_fields import FieldReader, Piece, flat, plain
from models.document_models.donut_prompts import DonutTokens, prompts_of
from models.document_models.page_words import PageWord, page_words
from models.document_models.word_fields import WordFields, as_object
from models.document_models.word_windows import OVERLAP, WindowEncoder
from models.errors import ModelLoadError
from models.page_formats.geometry import Box
from models.types.pages import Page, TextLine
from tests.tiny_documents import BASE, CORD, DOCVQA, RVLCDIP, text_page
from tests.tiny_models import tokenizer

NAMES = ("menu", "nm", "price", "total", "class")
ADDED = frozenset(
    {*BASE, "<yes/>", *(f"<s_{name}>" for name in NAMES), *(f"</s_{name}>" for name in NAMES)}
)
WORDS = ("tea", "12", "<yes/>")


# --- what Donut writes --------------------------------------------------------------------------


def pieces(tokens: list[str]) -> list[Piece]:
    return [Piece(place, token, -0.5) for place, token in enumerate(tokens)]


def reader(tokens: list[str]) -> FieldReader:
    return FieldReader(lambda ids: " ".join(tokens[i] for i in ids), ADDED)


def written(rng: random.Random, depth: int) -> list[str]:
    """Fields of random names, nested, with lists of objects and of values."""
    tokens: list[str] = []
    for name in rng.sample(NAMES, rng.randint(1, 3)):
        inner = written(rng, depth - 1) if depth and rng.random() < 0.6 else values(rng)
        if f"<s_{name}>" in inner:
            continue  # a field within itself has two meanings
        if rng.random() < 0.3 and inner[0].startswith("<s_"):
            inner = [*inner, "<sep/>", *inner]
        tokens += [f"<s_{name}>", *inner, f"</s_{name}>"]
    return tokens or ["<s_nm>", "tea", "</s_nm>"]


def values(rng: random.Random) -> list[str]:
    tokens = [rng.choice(WORDS)]
    for _ in range(rng.randint(0, 2)):
        tokens += rng.choice((["<sep/>", rng.choice(WORDS)], [rng.choice(("tea", "12"))]))
    return tokens


@pytest.mark.parametrize("seed", range(40))
def test_fields_are_those_of_transformers(seed: int) -> None:
    tokens = written(random.Random(seed), 2)
    if seed % 4 == 0:  # an end is missing
        ends = [place for place, token in enumerate(tokens) if token.startswith("</")]
        del tokens[random.Random(seed).choice(ends)]
    words = tokenizer(typed=False, limit=64)
    words.add_tokens(sorted(ADDED))
    theirs = DonutProcessor(transformers.DonutImageProcessorPil(), words)
    tree = reader(tokens).tree(pieces(tokens))
    expected = theirs.token2json(" ".join(tokens))
    if "text_sequence" in expected:
        expected = {}
    assert plain(tree) == expected, tokens


def test_values_have_paths_and_the_chances_of_their_own_tokens() -> None:
    tokens = [
        "<s_menu>",
        "<s_nm>",
        "green",
        "tea",
        "</s_nm>",
        "<sep/>",
        "<s_nm>",
        "</s_nm>",
        "</s_menu>",
    ]
    logs = [0, 0, -1.0, -2.0, 0, 0, 0, -0.25, 0]
    given = [Piece(i, token, logs[i]) for i, token in enumerate(tokens)]
    first, second = flat(reader(tokens).tree(given))
    assert (first.key, first.value) == ("menu.0.nm", "green tea")
    assert first.probability == pytest.approx(np.exp(-1.5))
    assert (second.key, second.value) == ("menu.1.nm", "")
    assert second.probability == pytest.approx(np.exp(-0.25))


def test_deep_nests_end() -> None:
    names = [f"n{n}" for n in range(400)]
    tokens = [f"<s_{n}>" for n in names] + [f"</s_{n}>" for n in reversed(names)]
    tree = reader(tokens).tree(pieces(tokens))
    assert next(iter(flat(tree))).key.count(".") < 40


@pytest.mark.parametrize(
    ("tokens", "task", "prompt"),
    [
        (CORD, "extraction", "<s_cord-v2>"),
        (DOCVQA, "vqa", "<s_docvqa><s_question>{question}</s_question><s_answer>"),
        (RVLCDIP, "classification", "<s_rvlcdip><s_class>"),
        (CORD[1:], "extraction", "<s>"),
    ],
)
def test_tokens_tell_task_and_prompt(tokens: tuple[str, ...], task: str, prompt: str) -> None:
    known = DonutTokens(frozenset({*BASE, *tokens}), start="<s>")
    assert prompts_of(known, None) == {task: prompt}


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ((), "plain text"),
        ((*CORD, "<s_other>"), "any of <s_cord-v2>, <s_other>: say which"),
    ],
)
def test_what_tokens_do_not_tell_is_refused(tokens: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        prompts_of(DonutTokens(frozenset({*BASE, *tokens})), None)


# --- words and windows --------------------------------------------------------------------------


def test_places_are_in_thousandths_of_the_page() -> None:
    outline = ((-5.0, 30.0), (100.0, 30.0), (100.0, 250.0), (-5.0, 250.0))
    (word,) = page_words(Page(200, 240, (TextLine("total", 0.7, outline),)))
    assert word == PageWord("total", 0.7, Box(-5, 30, 100, 250), (0, 125, 500, 1000))


@pytest.mark.parametrize("question", [None, "who is it"])
@pytest.mark.parametrize("rows", [0, 1, 5, 40])
def test_windows_have_all_tokens_in_order(question: str | None, rows: int) -> None:
    words = page_words(text_page(*[f"word{n} of 7" for n in range(rows)]))
    encoder = WindowEncoder(tokenizer(typed=True, limit=64), 64, (1000,) * 4)
    found = encoder.windows(words, question)
    whole = WindowEncoder(tokenizer(typed=True, limit=64), 100_000, (1000,) * 4)
    (expected,) = whole.windows(words, question).windows
    tokens = [expected.ids[place] for place in expected.context]
    assert len(found.words) == len(tokens)
    for window in found.windows:
        assert len(window) <= 64
        inside = [window.ids[place] for place in window.context]
        assert inside == tokens[window.first : window.first + len(inside)]
        of = found.words[window.first : window.first + len(inside)]
        assert [window.places[p] for p in window.context] == [words[w].place for w in of]
    for token in range(len(tokens)):
        index, place = found.of_token(token)
        assert found.windows[index].ids[place] == tokens[token]
    starts = [window.first for window in found.windows]
    room = encoder.room(question)
    assert all(b - a == room - min(OVERLAP, room // 2) for a, b in itertools.pairwise(starts))


# --- answers ------------------------------------------------------------------------------------


def scores(first: int, start: list[float], end: list[float], nothing: float = -9.0) -> SpanScores:
    return SpanScores(first, np.float32(start), np.float32(end), (nothing, nothing))  # type: ignore[arg-type]


def test_an_answer_starts_before_it_ends_and_is_not_too_long() -> None:
    window = scores(0, [0, 0, 0, 9], [9, 0, 5, 1])
    assert best_answer([window], max_tokens=4, may_be_none=False).span == (3, 4)
    window = scores(0, [5, 0, 0, 1], [0, 0, 0, 5])
    assert best_answer([window], max_tokens=4, may_be_none=False).span == (0, 4)
    assert best_answer([window], max_tokens=3, may_be_none=False).span == (3, 4)


def test_the_best_window_has_the_answer_and_tokens_of_two_count_once() -> None:
    first, second = scores(0, [0, 0, 4], [0, 0, 4]), scores(2, [3, 0, 0], [3, 0, 0])
    answer = best_answer([first, second], max_tokens=9, may_be_none=False)
    assert answer.span == (2, 3)
    once = scores(0, [0, 0, 4, 0, 0], [0, 0, 4, 0, 0])
    alone = best_answer([once], max_tokens=9, may_be_none=False)
    assert answer.probability == pytest.approx(alone.probability)
    assert alone.probability == pytest.approx((np.exp(4) / (np.exp(4) + 4 + np.exp(-9))) ** 2)


def test_no_answer_needs_every_window_to_say_so() -> None:
    empty, found = scores(0, [0, 0], [0, 0], nothing=8), scores(2, [5, 0], [5, 0], nothing=1)
    assert best_answer([empty], max_tokens=2, may_be_none=True).span is None
    assert best_answer([empty], max_tokens=2, may_be_none=False).span == (0, 1)
    assert best_answer([empty, found], max_tokens=2, may_be_none=True).span == (2, 3)


# --- fields -------------------------------------------------------------------------------------


def test_words_of_one_label_are_one_value() -> None:
    labels = ("O", "B-NAME", "I-NAME", "B-SUM", "I-SUM")
    words = page_words(text_page("to Bob Smith Ann owes 12 euro"))
    chances = np.full((7, 5), 0.1)
    for place, label in enumerate([0, 1, 2, 1, 0, 4, 4]):
        chances[place, label] = 0.6 + place / 100
    fields = WordFields(labels).of(words, chances)
    assert [(f.key, f.value) for f in fields] == [
        ("NAME", "Bob Smith"),
        ("NAME", "Ann"),
        ("SUM", "12 euro"),
    ]
    assert fields[0].probability == pytest.approx(0.615)
    assert fields[0].box == (50, 0, 140, 20)
    assert as_object(fields) == {"NAME": ["Bob Smith", "Ann"], "SUM": "12 euro"}
    assert WordFields(labels).of([], np.zeros((0, 5))) == ()
