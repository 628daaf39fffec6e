"""What every finder of entities does: the weightless twin and tiny random models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.encoders.token_classifier import TorchTokenClassifier
from models.errors import EngineDeadError, InvalidInputError, ModelError, ModelLoadError
from models.toy.classifier import ToyEntityRecognizer
from models.types.classification import Entity, EntityRequest, EntityResult
from tests.tiny_classifiers import write_token_classifier

WAIT = 60.0
TEXTS = (
    "Ada met Grace in 1952.",
    "nothing here",
    " \t",
    "x",
    "café Ünïcode 漢字 Paris 🎉 Berlin 7",
)
STRATEGIES: Any = ("none", "simple", "first", "average", "max")

TINY: dict[str, Callable[[Path], Any]] = {
    "toy": lambda _: ToyEntityRecognizer(max_tokens=64),
    "bert": lambda path: _tiny(path, "bert"),
    "bert-padded": lambda path: _tiny(path, "deberta-v2"),
    "bytes": lambda path: _tiny(path, "roberta", bytes_bpe=True),
}


def _tiny(path: Path, family: str, **options: Any) -> TorchTokenClassifier:
    folder = write_token_classifier(path, family, **options)
    return TorchTokenClassifier(folder, n_threads=1, dtype="float32", max_tokens=64)


@pytest.fixture(scope="module", params=TINY)
def recognizer(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    engine = TINY[request.param](tmp_path_factory.mktemp(request.param))
    yield engine
    engine.close()


def find(model: Any, *texts: str, **options: Any) -> Any:
    (result,) = model.submit([EntityRequest(texts, **options)]).result(WAIT)
    assert isinstance(result, EntityResult | ModelError)
    return result


@pytest.mark.parametrize("aggregation", STRATEGIES)
def test_entities_are_labelled_parts_of_the_text_in_order(
    recognizer: Any, aggregation: Any
) -> None:
    result = find(recognizer, *TEXTS, aggregation=aggregation)
    assert len(result.entities) == len(TEXTS)
    for text, entities in zip(TEXTS, result.entities, strict=True):
        for entity in entities:
            assert 0 <= entity.start < entity.end <= len(text)
            assert 0 < entity.score <= 1
            assert entity.label.removeprefix("B-").removeprefix("I-") in recognizer.entity_labels
        starts = [entity.start for entity in entities]
        assert starts == sorted(starts)


def test_a_text_without_tokens_has_none(tmp_path: Path) -> None:
    model = TINY["bert"](tmp_path)
    result = find(model, " \t")
    model.close()
    assert (result.entities, result.usage.prompt_tokens) == (((),), 0)


def same(one: tuple[Entity, ...], other: tuple[Entity, ...]) -> bool:
    return [(e.label, e.start, e.end) for e in one] == [
        (e.label, e.start, e.end) for e in other
    ] and np.allclose([e.score for e in one], [e.score for e in other], atol=1e-4)


@pytest.mark.parametrize("aggregation", STRATEGIES)
def test_a_text_has_the_same_alone_and_in_company(recognizer: Any, aggregation: Any) -> None:
    whole = find(recognizer, *TEXTS, aggregation=aggregation).entities
    for text, entities in zip(TEXTS, whole, strict=True):
        assert same(find(recognizer, text, aggregation=aggregation).entities[0], entities)


def test_long_texts_are_read_to_their_end_without_doubles(recognizer: Any) -> None:
    text = "Ada met Grace in 1952. " * 40
    result = find(recognizer, text, aggregation="none")
    (entities,) = result.entities
    assert result.usage.prompt_tokens > 700
    assert entities[-1].end > len(text) - 40
    spans = [(entity.start, entity.end) for entity in entities]
    assert len(set(spans)) == len(spans)


@pytest.mark.parametrize("texts", [(), ("",), ("a", ""), ("half \ud800",)])
def test_what_cannot_be_read_is_refused_alone(recognizer: Any, texts: tuple[str, ...]) -> None:
    sound, bad = recognizer.submit([EntityRequest(TEXTS), EntityRequest(texts)]).result(WAIT)
    assert isinstance(sound, EntityResult)
    assert isinstance(bad, InvalidInputError)
    assert bad.param == "texts"


def test_a_closed_engine_refuses(tmp_path: Path) -> None:
    for name in ("toy", "bert"):
        model = TINY[name](tmp_path)
        model.close()
        model.close()
        with pytest.raises(EngineDeadError):
            model.submit([EntityRequest(("a",))])


def test_the_weightless_twin_finds_names_and_numbers() -> None:
    model = ToyEntityRecognizer(max_tokens=128)
    text = "Ada Lovelace met Charles Babbage in 1833, twice. " * 5
    (entities,) = find(model, text).entities
    model.close()
    found = [(text[e.start : e.end], e.label) for e in entities]
    names = ("Ada", "Lovelace", "Charles", "Babbage")
    assert found == [*((name, "NAME") for name in names), ("1833", "NUMBER")] * 5
    assert model.entity_labels == ("NAME", "NUMBER")


def test_a_window_too_small_for_overlaps_is_refused(tmp_path: Path) -> None:
    folder = write_token_classifier(tmp_path, "bert")
    with pytest.raises(ModelLoadError, match="8 tokens"):
        TorchTokenClassifier(folder, n_threads=1, max_tokens=7)
