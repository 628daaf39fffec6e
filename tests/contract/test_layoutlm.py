"""LayoutLM and its like on tiny weights: their answers are those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, pipeline

from models.document_models.layout_model import LayoutModel
from models.document_models.page_words import NOWHERE, page_words
from models.document_models.word_windows import OVERLAP, WindowEncoder
from models.transformers_loading import load_fast_tokenizer
from models.types.pages import Page
from tests.document_questions import LONG, SHORT, ask, picture
from tests.tiny_documents import (
    FAMILIES,
    KINDS,
)


def test_labelled_words_become_fields_with_places(document_models: dict[str, Any]) -> None:
    found = ask(document_models["digits"], LONG)
    assert [f.value for f in found.fields] == ["31", "31", "31", "31", "12"]
    assert {f.key for f in found.fields} == {"TOTAL"}
    assert found.data == {"TOTAL": ["31", "31", "31", "31", "12"]}
    last = found.fields[-1]
    assert last.box == (80, 120, 100, 140)
    assert last.ocr_confidence == pytest.approx(0.9)
    assert last.probability > 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_chances_of_words_are_the_network_s_own(
    document_folders: dict[str, Path], document_models: dict[str, Any], family: str
) -> None:
    name = f"{family}-TokenClassification"
    outputs, words = reference(document_folders[name], SHORT)
    chances = outputs.logits[0].softmax(-1)
    firsts = [words.index(word) for word in range(4)]
    labels = chances[firsts].argmax(-1)
    expected = {
        SHORT.lines[word // 2].words[word % 2].text: float(chances[place, label])
        for word, (place, label) in enumerate(zip(firsts, labels, strict=True))
        if label
    }
    found = ask(document_models[name]).fields
    assert {text for f in found for text in f.value.split()} == set(expected)
    for field in found:
        parts = [expected[text] for text in field.value.split()]
        assert field.probability == pytest.approx(sum(parts) / len(parts), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_kinds_of_pages_have_the_network_s_chances(
    document_folders: dict[str, Path], document_models: dict[str, Any], family: str
) -> None:
    name = f"{family}-SequenceClassification"
    outputs, _ = reference(document_folders[name], SHORT)
    expected = dict(zip(KINDS, outputs.logits[0].softmax(-1).tolist(), strict=True))
    assert dict(ask(document_models[name]).labels) == pytest.approx(expected, rel=1e-4)


def test_answers_are_those_of_transformers_pipeline(
    document_folders: dict[str, Path], document_models: dict[str, Any]
) -> None:
    path = document_folders["layoutlm-QuestionAnswering"]
    theirs = pipeline(
        "document-question-answering",
        model=transformers.LayoutLMForQuestionAnswering.from_pretrained(path),
        tokenizer=AutoTokenizer.from_pretrained(path),
    )
    boxes = [(word.text, list(word.place)) for word in page_words(SHORT)]
    for question in ("who is it", "what", "how much?"):
        (expected,) = theirs(
            image=Image.new("RGB", (9, 9)), question=question, word_boxes=boxes, max_answer_len=32
        )
        (field,) = ask(document_models["layoutlm-QuestionAnswering"], SHORT, question).fields
        assert (field.key, field.value) == (question, expected["answer"])
        assert field.probability == pytest.approx(expected["score"], rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_network_s_best_spans(
    document_folders: dict[str, Path], document_models: dict[str, Any], family: str
) -> None:
    name = f"{family}-QuestionAnswering"
    spans, _ = best_spans(document_folders[name], "who")
    first, last = max(spans, key=lambda span: spans[span])
    texts = [word.text for word in page_words(SHORT)]
    (field,) = ask(document_models[name]).fields
    assert field.value == " ".join(texts[first : last + 1])
    assert field.probability == pytest.approx(spans[first, last], rel=1e-4)
    assert field.box is not None


def best_spans(path: Path, question: str) -> tuple[dict[tuple[int, int], float], float]:
    """How probable spans of words (first, last) of the short page are, and no answer."""
    outputs, words = reference(path, SHORT, question)
    inside = [0, *(place for place, word in enumerate(words) if word is not None)]
    start = outputs.start_logits[0][inside].softmax(-1).tolist()
    end = outputs.end_logits[0][inside].softmax(-1).tolist()
    spans: dict[tuple[int, int], float] = {}
    for i in range(1, len(inside)):
        for j in range(i, len(inside)):
            span = (words[inside[i]] or 0, words[inside[j]] or 0)
            spans[span] = max(spans.get(span, 0.0), start[i] * end[j])
    return spans, start[0] * end[0]


def test_a_page_without_words_has_no_fields_and_no_answer(document_models: dict[str, Any]) -> None:
    blank = Page(100, 100, ())
    assert ask(document_models["layoutlmv3-TokenClassification"], blank).fields == ()
    (field,) = ask(document_models["layoutlm-QuestionAnswering"], blank).fields
    assert (field.value, field.box) == ("", None)
    labels = ask(document_models["layoutlmv3-SequenceClassification"], blank).labels
    assert sum(probability for _, probability in labels) == pytest.approx(1)


def test_no_answer_is_an_answer_where_the_model_knows_it(document_folders: dict[str, Path]) -> None:
    path = document_folders["layoutlm-QuestionAnswering"]
    model = LayoutModel(path, n_threads=1, no_answer=True)
    spans, nothing = best_spans(path, "who")
    best = max(spans.values())
    (field,) = ask(model).fields
    assert (field.value == "") == (nothing > best)
    assert field.probability == pytest.approx(max(nothing, best), rel=1e-4)
    model.close()


def reference(path: Path, page: Page, question: str | None = None) -> tuple[Any, list[int | None]]:
    """transformers' own outputs on one window, and the word of each of its tokens of the page."""
    config = transformers.AutoConfig.from_pretrained(path)
    network = getattr(transformers, config.architectures[0]).from_pretrained(path).eval()
    words = page_words(page)
    texts = [word.text for word in words]
    asked = (texts,) if question is None else (question.split(), texts)
    inputs = AutoTokenizer.from_pretrained(path)(
        *asked, is_split_into_words=True, return_tensors="pt"
    )
    sequence = 0 if question is None else 1
    of = [
        word if part == sequence else None
        for word, part in zip(inputs.word_ids(), inputs.sequence_ids(), strict=True)
    ]
    end = [1000] * 4 if config.model_type == "layoutlm" else [0] * 4
    ends = inputs["input_ids"][0] == 3
    boxes = [
        list(words[word].place) if word is not None else end if ends[place] else [0] * 4
        for place, word in enumerate(of)
    ]
    if config.model_type == "layoutlmv3":
        images = transformers.LayoutLMv3ImageProcessorPil.from_pretrained(path)
        inputs["pixel_values"] = images(picture(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return network(**inputs, bbox=torch.tensor([boxes])), of


@pytest.mark.parametrize("question", ["who is it", None])
def test_windows_are_those_of_the_family_s_tokenizer(tmp_path: Path, question: str | None) -> None:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {name: place for place, name in enumerate(names)}
    transformers.LayoutLMv3Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    theirs = load_fast_tokenizer(tmp_path, add_prefix_space=True)
    words = page_words(LONG)
    encoder = WindowEncoder(theirs, 64, NOWHERE)
    windows = encoder.windows(words, question).windows
    texts = [word.text for word in words]
    expected = theirs(
        **({"text": texts} if question is None else {"text": question, "text_pair": texts}),
        boxes=[list(word.place) for word in words],
        truncation="longest_first" if question is None else "only_second",
        max_length=64,
        stride=min(OVERLAP, encoder.room(question) // 2),
        return_overflowing_tokens=True,
    )
    assert len(windows) > 2
    assert [list(window.ids) for window in windows] == expected["input_ids"]
    assert [[list(p) for p in window.places] for window in windows] == expected["bbox"]


def test_a_page_is_looked_at_once_however_many_windows_it_has(
    document_models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = document_models["layoutlmv3-QuestionAnswering"]
    network, pictures = model._network, []
    look = network._processor

    def noted(images: list[Any], **options: Any) -> Any:
        pictures.extend(images)
        return look(images, **options)

    monkeypatch.setattr(network, "_processor", noted)
    found = ask(model, LONG, "who", "what is it")
    assert len(found.fields) == 2
    assert len(pictures) == 1
