"""Labels and entities against the reference, transformers' pipelines, at every length."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from models.encoders.classifier import TorchClassifier
from models.encoders.token_classifier import TorchTokenClassifier
from models.types.classification import ClassificationRequest, EntityRequest
from tests.contract.test_encoder_fidelity import texts_of
from tests.tiny_classifiers import IOB, NLI, PLAIN, write_classifier, write_token_classifier
from tests.tiny_models import write_json

WAIT = 120.0
FAMILIES = ("bert", "roberta", "distilbert", "xlm-roberta", "deberta-v2", "modernbert", "electra")
PADDED = frozenset({"deberta-v2"})
TOLERANCE = {"float32": 2e-4, "bfloat16": 0.15}
"""Of scores between 0 and 1; in bfloat16 the tiny models' wide weights cost more than real ones."""
LENGTHS = (1, 2, 3, 5, 8, 13, 13, 21, 34, 45)
TEXTS = [*texts_of(LENGTHS), " ", "?", "BIG Letters", "naïve Ünïcode 漢字 🎉"]
LABELS = ("joy", "anger", "fear", "calm")
CANDIDATES = ("politics", "sports", "the weather")


def together_and_alone(model: Any, texts: Sequence[Any], **options: Any) -> list[Any]:
    """The scores of all texts in one request, and of each in a request of its own."""
    (whole,) = model.submit([ClassificationRequest(tuple(texts), **options)]).result(WAIT)
    alone = [
        model.submit([ClassificationRequest((text,), **options)]).result(WAIT)[0] for text in texts
    ]
    return [whole.scores, np.concatenate([result.scores for result in alone])]


def reference(folder: Path, texts: Sequence[Any], **options: Any) -> Any:
    """Scores [texts, labels] of the pipeline, in the order of the labels."""
    pipe = pipeline("text-classification", model=str(folder), device="cpu")
    names = pipe.model.config.id2label
    order = [names[index] for index in range(len(names))]
    rows = []
    for text in texts:
        wire = {"text": text[0], "text_pair": text[1]} if isinstance(text, tuple) else text
        found = pipe(wire, top_k=None, **options)
        scores = {entry["label"]: entry["score"] for entry in found}
        rows.append([scores[label] for label in order])
    return np.array(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_reference_scores(family: str, tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, family, LABELS)
    model = TorchClassifier(folder, n_threads=1, dtype="float32")
    assert model.runner.packed is (family not in PADDED)
    assert model.labels == LABELS
    for scores in together_and_alone(model, TEXTS):
        np.testing.assert_allclose(scores, reference(folder, TEXTS), atol=TOLERANCE["float32"])
    model.close()


def test_bfloat16_stays_close(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, "bert", LABELS)
    model = TorchClassifier(folder, n_threads=1, dtype="bfloat16")
    for scores in together_and_alone(model, TEXTS):
        np.testing.assert_allclose(scores, reference(folder, TEXTS), atol=TOLERANCE["bfloat16"])
    model.close()


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("multi_label_classification", LABELS),
        ("single_label_classification", LABELS[:2]),
        ("regression", LABELS[:1]),
        (None, LABELS[:1]),
    ],
)
def test_the_activation_follows_the_kind_of_problem(
    problem: str | None, labels: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write_classifier(tmp_path, "bert", labels, problem_type=problem)
    model = TorchClassifier(folder, n_threads=1, dtype="float32")
    for scores in together_and_alone(model, TEXTS):
        np.testing.assert_allclose(scores, reference(folder, TEXTS), atol=5e-4)
    model.close()


def test_pairs_are_read_as_pairs(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path, "bert", LABELS)
    pairs = list(zip(TEXTS[:8], TEXTS[8:0:-1], strict=True))
    model = TorchClassifier(folder, n_threads=1, dtype="float32")
    expected = reference(folder, pairs, truncation=True, max_length=model.max_tokens)
    for scores in together_and_alone(model, pairs):
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE["float32"])
    model.close()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [NLI, NLI[::-1]])
def test_zero_shot_gives_the_reference_scores(
    labels: tuple[str, ...], multi_label: bool, tmp_path: Path
) -> None:
    folder = write_classifier(tmp_path, "bert", labels)
    texts = texts_of((1, 3, 8, 21, 45, 60), seed=1)
    model = TorchClassifier(folder, n_threads=1, dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=model.max_tokens)
        pipe = pipeline("zero-shot-classification", model=str(folder), tokenizer=tokenizer)
    expected = []
    for text in texts:
        options = {"hypothesis_template": "it is about {}.", "multi_label": multi_label}
        found = pipe(text, list(CANDIDATES), **options)
        scores = dict(zip(found["labels"], found["scores"], strict=True))
        expected.append([scores[label] for label in CANDIDATES])
    options = {"labels": CANDIDATES, "hypothesis": "it is about {}.", "multi_label": multi_label}
    for scores in together_and_alone(model, texts, **options):
        np.testing.assert_allclose(scores, expected, atol=TOLERANCE["float32"])
    model.close()


# --- entities --------------------------------------------------------------------------------


@pytest.fixture(params=[*FAMILIES, "roberta-bytes", "plain"], scope="module")
def recognizer(request: Any, tmp_path_factory: Any) -> Iterator[tuple[Path, Any]]:
    path = tmp_path_factory.mktemp(request.param)
    family = {"roberta-bytes": "roberta", "plain": "bert"}.get(request.param, request.param)
    folder = write_token_classifier(
        path,
        family,
        PLAIN if request.param == "plain" else IOB,
        bytes_bpe=request.param == "roberta-bytes",
    )
    model = TorchTokenClassifier(folder, n_threads=1, dtype="float32")
    assert model.runner.packed is (family not in PADDED)
    yield folder, model
    model.close()


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_every_family_finds_the_reference_entities(
    recognizer: tuple[Path, Any], aggregation: Any
) -> None:
    folder, model = recognizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = pipeline("token-classification", model=str(folder), device="cpu")
        expected = [pipe(text, aggregation_strategy=aggregation) for text in TEXTS]
    assert sum(map(len, expected)) > 10
    (result,) = model.submit([EntityRequest(tuple(TEXTS), aggregation)]).result(WAIT)
    alone = [
        model.submit([EntityRequest((text,), aggregation)]).result(WAIT)[0].entities[0]
        for text in TEXTS
    ]
    for text, one, other, reference in zip(TEXTS, result.entities, alone, expected, strict=True):
        for found in (one, other):
            assert [(e.label, e.start, e.end) for e in found] == [
                (r.get("entity_group", r.get("entity")), r["start"], r["end"]) for r in reference
            ], text
            np.testing.assert_allclose(
                [e.score for e in found], [r["score"] for r in reference], atol=2e-4
            )


def test_long_texts_are_read_in_windows_that_agree_with_the_whole(tmp_path: Path) -> None:
    """A model in which a token sees 8 others to each side says the same in any window with them."""
    folder = write_token_classifier(tmp_path, "modernbert")
    config = json.loads((folder / "config.json").read_text())
    layers = ["sliding_attention"] * len(config["layer_types"])
    write_json(folder / "config.json", config | {"layer_types": layers, "local_attention": 4})
    whole = TorchTokenClassifier(folder, n_threads=1, dtype="float32", max_tokens=310)
    windowed = TorchTokenClassifier(folder, n_threads=1, dtype="float32", max_tokens=82)
    text = texts_of((50,), seed=3)[0][:300]
    assert windowed.max_tokens == 82
    request = [EntityRequest((text, "paris", text[:200]), "none")]
    (expected,) = whole.submit(request).result(WAIT)
    (found,) = windowed.submit(request).result(WAIT)
    assert found.usage.prompt_tokens > expected.usage.prompt_tokens > 300
    for one, other in zip(found.entities, expected.entities, strict=True):
        assert [(e.label, e.start, e.end) for e in one] == [
            (e.label, e.start, e.end) for e in other
        ]
        np.testing.assert_allclose([e.score for e in one], [e.score for e in other], atol=1e-4)
    whole.close()
    windowed.close()


def test_logits_of_every_token_at_every_length(tmp_path: Path) -> None:
    """Beneath the entities: each token's logits against the model itself, packed and alone."""
    import torch

    folder = write_token_classifier(tmp_path, "distilbert")
    model = TorchTokenClassifier(folder, n_threads=1, dtype="float32")
    plain = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sequences = [
        window
        for place, text in enumerate(model._codec.tokenizer.tokenized(TEXTS))
        for window in model._codec.tokenizer.windows(text, place, model.max_tokens)
    ]
    rows = iter(model.runner(sequences))
    for text in TEXTS:
        with torch.inference_mode():
            inputs = tokenizer(text, return_tensors="pt")
            expected = plain(**inputs).logits[0].numpy()
        if len(expected) > 2:
            np.testing.assert_allclose(next(rows), expected, atol=2e-3)
    model.close()
