"""What every classifier of texts does: the weightless twin and tiny random models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.encoders.classifier import TorchClassifier
from models.errors import (
    EngineDeadError,
    InputTooLongError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
    OverloadedError,
)
from models.toy.classifier import ToyClassifier
from models.types.classification import ClassificationRequest, ClassificationResult
from tests.jobs import cancelled
from tests.tiny_classifiers import NLI, write_classifier
from tests.tiny_models import write_json

WAIT = 60.0
LABELS = ("negative", "neutral", "positive")
TEXTS = ("this works, good", "a bad one", "the museum of art", " \t", "broken. " * 20, "x")
CANDIDATES = ("museum", "weather", "a bad one")

TINY: dict[str, Callable[[Path], Any]] = {
    "toy": lambda _: ToyClassifier(max_tokens=256),
    "toy-entailment": lambda _: ToyClassifier(entailment=True, max_tokens=256),
    "bert": lambda path: _tiny(path, "bert", LABELS),
    "bert-entailment": lambda path: _tiny(path, "bert", NLI),
    "distilbert": lambda path: _tiny(path, "distilbert", LABELS),
    "deberta-v2": lambda path: _tiny(path, "deberta-v2", LABELS),
}


def _tiny(path: Path, family: str, labels: tuple[str, ...], **options: Any) -> TorchClassifier:
    folder = write_classifier(path, family, labels, **options)
    return TorchClassifier(folder, n_threads=1, dtype="float32")


@pytest.fixture(scope="module", params=[name for name in TINY if name != "toy-entailment"])
def named(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[tuple[str, Any]]:
    engine = TINY[request.param](tmp_path_factory.mktemp(request.param))
    yield request.param, engine
    engine.close()


@pytest.fixture
def classifier(named: tuple[str, Any]) -> Any:
    return named[1]


@pytest.fixture(scope="module", params=["toy-entailment", "bert-entailment"])
def judge(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    engine = TINY[request.param](tmp_path_factory.mktemp(request.param))
    yield engine
    engine.close()


def classify(model: Any, *texts: Any, **options: Any) -> Any:
    (result,) = model.submit([ClassificationRequest(texts, **options)]).result(WAIT)
    assert isinstance(result, ClassificationResult | ModelError)
    return result


def test_a_row_of_probabilities_per_text(classifier: Any) -> None:
    result = classify(classifier, *TEXTS)
    assert result.labels == classifier.labels
    assert result.scores.shape == result.logits.shape == (len(TEXTS), 3)
    np.testing.assert_allclose(result.scores.sum(axis=1), 1, atol=1e-5)
    assert (result.scores.argmax(axis=1) == result.logits.argmax(axis=1)).all()


def test_a_text_scores_the_same_alone_and_in_company(classifier: Any) -> None:
    whole = classify(classifier, *TEXTS).scores
    alone = np.concatenate([classify(classifier, text).scores for text in TEXTS])
    np.testing.assert_allclose(whole, alone, atol=1e-4)
    assert np.ptp(whole, axis=0).max() > 0.01


def test_both_texts_of_a_pair_matter(classifier: Any) -> None:
    pairs = [("good", "good"), ("good", "awful"), ("awful", "good")]
    rows = classify(classifier, *pairs).logits
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert np.abs(rows[0] - rows[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("texts", "param"),
    [((), "input"), (("",), "input"), (("a", "half \ud800"), "input"), ((("a", ""),), "input")],
)
def test_what_cannot_be_read_is_refused_alone(
    classifier: Any, texts: tuple[Any, ...], param: str
) -> None:
    sound, bad, last = classifier.submit(
        [ClassificationRequest(TEXTS), ClassificationRequest(texts), ClassificationRequest(TEXTS)]
    ).result(WAIT)
    assert isinstance(bad, InvalidInputError)
    assert bad.param == param
    np.testing.assert_allclose(sound.scores, last.scores, atol=1e-4)


def test_usage_counts_special_tokens(classifier: Any) -> None:
    assert classify(classifier, "a", "b").usage.prompt_tokens == 6
    assert classify(classifier, ("a", "b")).usage.prompt_tokens == 5


def test_long_texts_are_cut_or_refused(classifier: Any) -> None:
    long = "a " * 3000
    for text in (long, (long, "b"), ("b", long), (long, long)):
        assert classify(classifier, text).usage.prompt_tokens == classifier.max_tokens
        error = classify(classifier, text, truncate=False)
        assert isinstance(error, InputTooLongError)
        assert error.limit == classifier.max_tokens
        assert error.tokens >= 3000


def test_texts_can_be_cut_sooner(classifier: Any) -> None:
    assert classify(classifier, "a b c d e f", max_tokens=4).usage.prompt_tokens == 4
    assert classify(classifier, "a", max_tokens=10**9).usage.prompt_tokens == 3
    for limit in (0, -1, 2):
        error = classify(classifier, "a", max_tokens=limit)
        assert isinstance(error, InvalidInputError)
        assert error.param == "max_length"


def test_labels_of_the_request_are_judged(judge: Any) -> None:
    result = classify(judge, *TEXTS[:3], labels=CANDIDATES)
    assert result.labels == CANDIDATES
    assert result.scores.shape == (3, 3)
    np.testing.assert_allclose(result.scores.sum(axis=1), 1, atol=1e-5)
    alone = classify(judge, TEXTS[2], labels=CANDIDATES).scores[0]
    np.testing.assert_allclose(result.scores[2], alone, atol=1e-4)


def test_labels_that_do_not_exclude_each_other_are_judged_alone(judge: Any) -> None:
    options = {"multi_label": True, "hypothesis": "about {}"}
    whole = classify(judge, TEXTS[2], labels=CANDIDATES, **options).scores[0]
    alone = [
        classify(judge, TEXTS[2], labels=(label,), **options).scores[0, 0] for label in CANDIDATES
    ]
    np.testing.assert_allclose(whole, alone, atol=1e-4)
    one = classify(judge, TEXTS[2], labels=CANDIDATES[:1], hypothesis="about {}").scores[0, 0]
    assert one == pytest.approx(alone[0], abs=1e-5)


def test_of_a_long_text_only_the_text_is_cut(judge: Any) -> None:
    labels = ("b", "c d e f g")
    result = classify(judge, "a " * 3000, labels=labels, hypothesis="{}")
    assert result.usage.prompt_tokens == 2 * judge.max_tokens
    same = classify(judge, "a " * 3000, labels=labels[::-1], hypothesis="{}")
    np.testing.assert_allclose(result.scores, same.scores[:, ::-1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
        ({"labels": ("a", "\ud800")}, "labels"),
        ({"labels": ("a " * 3000,)}, "labels"),
        ({"labels": ("a", "b"), "hypothesis": "no place"}, "hypothesis_template"),
        ({"labels": ("a", "b"), "hypothesis": "{} and {}"}, "hypothesis_template"),
        ({"labels": ("a", "b"), "hypothesis": "{0.__class__}"}, "hypothesis_template"),
    ],
)
def test_bad_labels_are_refused(judge: Any, options: dict[str, Any], param: str) -> None:
    error = classify(judge, "text", **options)
    assert isinstance(error, InvalidInputError)
    assert error.param == param


def test_pairs_are_not_judged_by_labels_of_a_request(judge: Any) -> None:
    error = classify(judge, ("a", "b"), labels=CANDIDATES)
    assert isinstance(error, InvalidInputError)
    assert error.param == "labels"


def test_a_model_with_labels_of_its_own_judges_no_others(tmp_path: Path) -> None:
    for name in ("toy", "bert"):
        model = TINY[name](tmp_path)
        error = classify(model, "text", labels=CANDIDATES)
        model.close()
        assert isinstance(error, InvalidInputError)
        assert error.param == "labels"


def test_many_clients_get_their_own_scores(classifier: Any) -> None:
    expected = classify(classifier, *TEXTS).scores
    found: dict[int, Any] = {}

    def client(index: int) -> None:
        found[index] = classify(classifier, TEXTS[index % len(TEXTS)]).scores[0]

    threads = [threading.Thread(target=client, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(found) == 16
    for index, row in found.items():
        np.testing.assert_allclose(row, expected[index % len(TEXTS)], atol=1e-4)


def test_a_cancelled_job_is_dropped(classifier: Any) -> None:
    job = cancelled(lambda: classifier.submit([ClassificationRequest(("a b c d e f",) * 500)]))
    with pytest.raises(CancelledError):
        job.result(WAIT)
    assert len(classify(classifier, "still here").scores) == 1


@pytest.mark.parametrize("name", ["toy", "bert"])
def test_a_closed_engine_refuses(name: str, tmp_path: Path) -> None:
    model = TINY[name](tmp_path)
    model.close()
    model.close()
    with pytest.raises(EngineDeadError):
        model.submit([ClassificationRequest(("a",))])
    assert not model.alive


def test_zero_shot_counts_every_pair_against_the_queue() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        entered.set()
        gate.wait(WAIT)

    model = ToyClassifier(entailment=True, max_queued_tokens=400, on_batch=hold)
    first = model.submit([ClassificationRequest(("a",))])
    assert entered.wait(WAIT)
    text = "a" * 400
    second = model.submit([ClassificationRequest((text,), labels=("b", "c"))])
    with pytest.raises(OverloadedError):
        model.submit([ClassificationRequest((text,), labels=("b", "c"))])
    gate.set()
    assert len(first.result(WAIT)) == len(second.result(WAIT)) == 1
    model.close()


def test_a_folder_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "a", "bert", LABELS)
    config = (folder / "config.json").read_text()
    for change, reason in (
        ({"problem_type": "ranking"}, "problem type"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
    ):
        write_json(folder / "config.json", json.loads(config) | change)
        with pytest.raises(ModelLoadError, match=reason):
            TorchClassifier(folder, n_threads=1)


def test_moderation_labels_must_be_labels_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="toxic"):
        ToyClassifier(moderation_labels={"toxic": "harassment"})
    folder = write_classifier(tmp_path, "bert", LABELS)
    with pytest.raises(ModelLoadError, match="toxic"):
        TorchClassifier(folder, n_threads=1, moderation_labels={"toxic": "harassment"})
    ToyClassifier(moderation_labels={"negative": "harassment"}).close()
