"""Values of JSON text found on pages, and how sure a model was of them."""

from __future__ import annotations

import random
from math import exp, log

import pytest

from models.page_fields.json_leaves import Leaf, leaves
from models.page_fields.matching import MIN_SIMILARITY, PageWords
from models.page_fields.printed_numbers import numbers_in
from models.page_fields.token_scores import TokenScores
from models.types.generation import TokenLogprob
from tests.pages import WORDS, document, line, page, row


def test_leaves_have_paths_values_and_places() -> None:
    text = '{"a": "x\\"ÿ", "b" : [ 1.50 ,{"c":null, "d": true}], "e": {}, "f": []}'
    found = leaves(text)
    assert [(leaf.key, leaf.value) for leaf in found] == [
        ("a", 'x"ÿ'),
        ("b.0", 1.5),
        ("b.1.c", None),
        ("b.1.d", True),
    ]
    assert [text[leaf.start : leaf.stop] for leaf in found] == ['x\\"ÿ', "1.50", "null", "true"]
    assert leaves(' "alone" ') == [Leaf((), "alone", 2, 7)]


@pytest.mark.parametrize("text", ['{"a": ', "", "[1,]", "[" * 5000 + "]" * 5000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|nested"):
        leaves(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234.56", {1234.56}),
        ("1.234,56 €", {1234.56}),
        ("EUR 1 234,56", {1234.56}),
        ("1'234.50", {1234.5}),
        ("1,234", {1234.0, 1.234}),
        ("12", {12.0}),
        ("(12.00)", {-12.0}),
        ("-7", {-7.0}),
        ("12.5%", {12.5}),
        ("2024-117", set()),
        ("12.03.2024", set()),
        ("none", set()),
        ("", set()),
    ],
)
def test_printed_numbers(text: str, values: set[float]) -> None:
    assert numbers_in(text) == values


PAGES = document(
    page(
        line("ACME Corporation", 50, 50),
        *row(100, (50, "Subtotal"), (400, "1,200.00")),
        *row(130, (50, "Shipping"), (400, "34.56")),
        *row(160, (50, "Total due"), (400, "1,234.56 EUR")),
    ),
    page(line("Ref: INV-2024/117", 50, 50), *row(100, (50, "Total"), (400, "1,234.56"))),
)


def test_texts_are_found_whatever_their_case_and_punctuation() -> None:
    place = PageWords(PAGES).find("acme corporation.")
    assert place is not None
    assert (place.page, place.text) == (0, "ACME Corporation")
    assert place.box == (50, 50, 210, 70)
    assert place.confidence == pytest.approx(0.9)
    reference = PageWords(PAGES).find("INV 2024-117")
    assert reference is not None
    assert (reference.page, reference.text) == (1, "INV-2024/117")


def test_numbers_are_found_as_they_are_printed() -> None:
    place = PageWords(PAGES).find(34.56, "shipping")
    assert place is not None
    assert (place.page, place.text) == (0, "34.56")
    assert place.box == (400, 130, 450, 150)
    assert PageWords(PAGES).find(1200, "subtotal") is not None
    assert PageWords(PAGES).find(117) is None


def test_the_field_s_name_decides_between_places() -> None:
    amounts = document(
        page(*row(0, (0, "Net"), (200, "5.00")), *row(30, (0, "Gross"), (200, "5.00")))
    )
    words = PageWords(amounts)
    gross, net = words.find(5, "totals.gross"), words.find(5, "net")
    assert gross is not None
    assert net is not None
    assert (gross.box.top, net.box.top) == (30, 0)


def test_without_a_name_each_place_is_taken_once() -> None:
    words = PageWords(document(page(line("7", 0, 0), line("7", 0, 30))))
    places = [words.find(7), words.find(7), words.find(7)]
    assert [place.box.top for place in places if place] == [0, 30, 0]


def test_errors_of_recognition_are_forgiven_in_long_values_only() -> None:
    words = PageWords(
        document(page(line("Muller and Sons Limted Company", 0, 0), line("cot", 0, 40)))
    )
    place = words.find("Muller and Sons Limited Company")
    assert place is not None
    assert place.text == "Muller and Sons Limted Company"
    assert words.find("cat") is None
    assert words.find("Somebody Else Entirely") is None


@pytest.mark.parametrize("value", [None, True, False, "", "…", "absent", 99])
def test_what_is_not_on_the_page_has_no_place(value: str | bool | int | None) -> None:
    assert PageWords(PAGES).find(value) is None


def test_places_have_the_confidence_of_their_words() -> None:
    place = PageWords(document(page(WORDS))).find("total")
    assert place is not None
    assert (place.confidence, place.box) == (0.9, (120, 10, 210, 30))


def token(text: str, probability: float | None) -> TokenLogprob:
    raw = text.encode()
    return TokenLogprob(text, raw, None if probability is None else log(probability))


def test_parts_of_a_text_are_as_sure_as_their_tokens() -> None:
    tokens = [token("think", 0.1), token('{"ä":', 0.5), token(' "x', 0.8), token('y"', 0.2)]
    tokens += [token("}", 1.0), token("", 0.01)]
    scores = TokenScores('{"ä": "xy"}', tokens)
    assert scores.probability(7, 9) == pytest.approx((0.8 * 0.2) ** 0.5)
    assert scores.probability(0, 1) == pytest.approx(0.5)
    whole = scores.log_probability()
    assert whole is not None
    assert exp(whole) == pytest.approx(0.5 * 0.8 * 0.2)


def test_tokens_that_do_not_spell_the_text_say_nothing() -> None:
    scores = TokenScores("abc", [token("xyz", 0.5)])
    assert scores.probability(0, 3) is None
    assert TokenScores("abc", []).log_probability() is None


def test_looking_for_similar_words_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.page_fields.matching.MAX_FUZZY_WORDS", 10)
    words = PageWords(document(page(line("Muller and Sons Limted", 0, 0))))
    found = [words.find("Muller and Sons Limited") is not None for _ in range(4)]
    assert found == [True, True, False, False]
    assert words.find("muller and sons limted") is not None


def test_an_integer_that_no_float_reaches_is_found_nowhere() -> None:
    assert PageWords(PAGES).find(10**400) is None


def test_a_value_is_whole_words_of_one_page() -> None:
    words = PageWords(document(page(line("carpet no", 0, 0)), page(line("we were", 0, 0))))
    assert words.find("pet no") is None
    assert words.find("no we") is None
    assert words.find("car") is None
    place = words.find("we were")
    assert place is not None
    assert (place.page, place.text) == (1, "we were")


def test_similar_words_are_those_that_have_most_pairs_of_letters_in_common() -> None:
    rng = random.Random(5)
    for _ in range(200):
        texts = ["".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(12)]
        wanted = "".join(rng.choices("abc", k=9))
        words = PageWords(document(page(line(" ".join(texts), 0, 0))))
        place = words.find(wanted)
        windows = ["".join(texts[i:j]) for i in range(12) for j in range(i + 1, 13)]
        starts = [texts[i] for i in range(12) for _ in range(i + 1, 13)]
        chances = [
            _dice(wanted, window)
            for window, start in zip(windows, starts, strict=True)
            if 7 <= len(window) <= 11 and (_pairs(start) & _pairs(wanted) or wanted == window)
        ]
        best = max(chances, default=0.0)
        assert (place is not None) == (best >= MIN_SIMILARITY)
        if place is not None:
            assert _dice(wanted, place.text.replace(" ", "")) == pytest.approx(best)


def _pairs(letters: str) -> set[str]:
    return {letters[index : index + 2] for index in range(len(letters) - 1)}


def _dice(one: str, other: str) -> float:
    return 2 * len(_pairs(one) & _pairs(other)) / (len(_pairs(one)) + len(_pairs(other)))
