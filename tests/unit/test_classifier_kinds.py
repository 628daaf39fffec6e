"""Which classifier a catalogue entry becomes, and what its replica may be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from config.catalog import BuiltinSource, ModelSpec, PathSource
from config.settings import AppConfig
from deployments.classification import Classification
from deployments.engines import Resources, classifier
from deployments.model_cache.cache import ModelCache
from deployments.model_cache.loader import ModelLoader
from deployments.model_cache.loads import LoadLimits
from models.base import Classifier, ClassifierLibrary, EntityRecognizer
from models.encoders.classifier import TorchClassifier
from models.encoders.classifier_kinds import kind_of
from models.encoders.onnx_classifier import OnnxClassifier
from models.encoders.onnx_token_classifier import OnnxTokenClassifier
from models.encoders.token_classifier import TorchTokenClassifier
from models.errors import ModelLoadError, UnsupportedTaskError
from models.few_shot.classifier_library import Classifiers
from models.toy.classifier import ToyClassifier, ToyEntityRecognizer
from models.types.classification import (
    ClassificationRequest,
    ClassifierFitRequest,
    EntityRequest,
    LabelledVectors,
)
from tests.fakes import spec
from tests.tiny_classifiers import NLI, write_classifier, write_token_classifier
from tests.tiny_models import write_encoder, write_json
from tests.tiny_onnx import WIDTH, token_table, write_onnx_encoder, write_onnx_reranker

WAIT = 60.0
TOKEN_LABELS = ("O", *(f"T{n}" for n in range(WIDTH - 1)))


def test_the_architecture_says_what_a_folder_is(tmp_path: Path) -> None:
    assert kind_of(write_classifier(tmp_path / "s", "bert", NLI)) == "sequence"
    assert kind_of(write_token_classifier(tmp_path / "t", "bert")) == "token"
    assert kind_of(tmp_path) == "sequence"  # an ONNX graph without a configuration
    with pytest.raises(ModelLoadError, match="architectures"):
        kind_of(write_encoder(tmp_path / "e", "bert"))


def made(tmp_path: Path, engine: Any, source: Any = None, **options: Any) -> Any:
    spec = ModelSpec(
        id="m",
        task="classification",
        engine=engine,
        source=source or BuiltinSource(kind="builtin"),
        engine_options=options,
    )
    config = AppConfig(
        model_roots=(tmp_path,), data_dir=tmp_path / "data", weights_dir=tmp_path / "weights"
    )
    model = classifier(spec, config, Resources(n_threads=1))
    model.close()
    return model


def test_every_engine_makes_its_kind(tmp_path: Path) -> None:
    torch_folder = write_token_classifier(tmp_path / "torch", "bert")
    onnx_folder = tmp_path / "onnx"
    onnx_folder.mkdir()
    write_onnx_reranker(onnx_folder, labels=2)
    assert isinstance(made(tmp_path, "toy"), Classifier)
    assert isinstance(made(tmp_path, "toy", head="entailment"), Classifier)
    assert isinstance(made(tmp_path, "toy", head="token"), EntityRecognizer)
    assert isinstance(made(tmp_path, "classifiers"), Classifiers)
    assert (tmp_path / "data" / "classifiers").is_dir()
    source = PathSource(kind="path", path=str(torch_folder))
    assert isinstance(made(tmp_path, "torch", source), TorchTokenClassifier)
    source = PathSource(kind="path", path=str(write_classifier(tmp_path / "s", "bert", NLI)))
    assert isinstance(made(tmp_path, "torch", source), TorchClassifier)
    source = PathSource(kind="path", path=str(write_onnx_tokens(tmp_path / "tokens")))
    assert isinstance(made(tmp_path, "onnx", source), OnnxTokenClassifier)
    source = PathSource(kind="path", path=str(onnx_folder))
    onnx = made(tmp_path, "onnx", source, labels=["yes", "no"])
    assert isinstance(onnx, OnnxClassifier)
    assert onnx.labels == ("yes", "no")


def test_the_kinds_are_told_apart(tmp_path: Path) -> None:
    kinds = (Classifier, EntityRecognizer, ClassifierLibrary)
    for model, kind in (
        (made(tmp_path, "toy"), Classifier),
        (made(tmp_path, "toy", head="token"), EntityRecognizer),
        (made(tmp_path, "classifiers"), ClassifierLibrary),
    ):
        assert [isinstance(model, other) for other in kinds] == [other is kind for other in kinds]


# --- ONNX ------------------------------------------------------------------------------------


@pytest.fixture
def onnx_folder(tmp_path: Path) -> Path:
    return write_onnx_reranker(tmp_path, labels=3)


def test_onnx_labels_and_activation_are_those_of_the_configuration(onnx_folder: Path) -> None:
    names = {"0": "a", "1": "b", "2": "c"}
    config = {"id2label": names, "problem_type": "multi_label_classification"}
    write_json(onnx_folder / "config.json", config)
    model = OnnxClassifier(onnx_folder, n_threads=1)
    (result,) = model.submit([ClassificationRequest(("paris", "x"))]).result(WAIT)
    model.close()
    assert result.labels == model.labels == ("a", "b", "c")
    np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-result.logits)), rtol=1e-5)
    assert np.ptp(result.logits[:, 0]) > 0.01


@pytest.mark.parametrize("problem", ["single_label_classification", None])
def test_the_score_of_a_single_label_depends_on_the_text(
    tmp_path: Path, problem: str | None
) -> None:
    folder = write_onnx_reranker(tmp_path, labels=1)
    write_json(folder / "config.json", {"id2label": {"0": "spam"}, "problem_type": problem})
    model = OnnxClassifier(folder, n_threads=1)
    (result,) = model.submit([ClassificationRequest(("paris", "x"))]).result(WAIT)
    model.close()
    np.testing.assert_allclose(result.scores, 1 / (1 + np.exp(-result.logits)), rtol=1e-5)
    assert np.ptp(result.scores[:, 0]) > 0.01


def test_an_onnx_graph_must_have_the_labels(onnx_folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="2 labels"):
        OnnxClassifier(onnx_folder, n_threads=1, labels=("a", "b"))
    with pytest.raises(ModelLoadError, match="no label 'toxic'"):
        OnnxClassifier(
            onnx_folder, n_threads=1, labels=tuple("abc"), moderation_labels={"toxic": "hate"}
        )


def write_onnx_tokens(path: Path) -> Path:
    """The tiny bi-encoder, whose states are taken for logits."""
    write_onnx_encoder(path)
    names = {str(index): name for index, name in enumerate(TOKEN_LABELS)}
    config = {"id2label": names, "architectures": ["BertForTokenClassification"]}
    write_json(path / "config.json", config)
    return path


def test_onnx_entities_are_what_the_graph_says_of_tokens(tmp_path: Path) -> None:
    model = OnnxTokenClassifier(write_onnx_tokens(tmp_path), n_threads=1)
    assert model.entity_labels == tuple(f"T{n}" for n in range(WIDTH - 1))
    texts = ("paris", "x", "the river of paris")
    (result,) = model.submit([EntityRequest(texts, "none")]).result(WAIT)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text, entities in zip(texts, result.entities, strict=True):
        wire = tokenizer(text, return_offsets_mapping=True)
        states = token_table()[wire["input_ids"]]
        logits = states + states.mean(axis=0)
        places = [place for place in range(1, len(logits) - 1) if logits[place].argmax() > 0]
        assert [(e.label, e.start, e.end) for e in entities] == [
            (TOKEN_LABELS[int(logits[place].argmax())], *wire["offset_mapping"][place])
            for place in places
        ]
    model.close()
    with pytest.raises(ModelLoadError, match="2 labels to a token"):
        OnnxTokenClassifier(tmp_path, n_threads=1, labels=("O", "A"))
    with pytest.raises(ModelLoadError, match="8 tokens"):
        OnnxTokenClassifier(tmp_path, n_threads=1, max_tokens=7)


# --- the replica -----------------------------------------------------------------------------


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Any]:
    replica = Classification.__new__(Classification)
    models: dict[str, Any] = {
        "labels": ToyClassifier(),
        "entities": ToyEntityRecognizer(),
        "fitted": Classifiers(root=tmp_path / "store"),
    }
    specs = [spec(name, "classification") for name in models]
    replica._models = ModelCache(specs, ModelLoader(lambda spec: models[spec.id]), LoadLimits(60))
    yield replica
    replica.shutdown()


async def test_every_method_has_its_models(replica: Any) -> None:
    (labelled,) = await replica.classify("labels", [ClassificationRequest(("good",))])
    assert labelled.labels[int(labelled.scores[0].argmax())] == "positive"
    (found,) = await replica.find_entities("entities", [EntityRequest(("Ada ran",))])
    assert [(e.label, e.start, e.end) for e in found.entities[0]] == [("NAME", 0, 3)]
    examples = LabelledVectors(("a", "b"), np.eye(2, dtype=np.float32))
    none = LabelledVectors((), np.zeros((0, 2), np.float32))
    request = ClassifierFitRequest("mood", "encoder", "f", examples, none)
    info = await replica.fit("fitted", request)
    assert await replica.get_classifier("fitted", "mood") == info
    assert await replica.list_classifiers("fitted") == [info]
    await replica.delete_classifier("fitted", "mood")
    assert await replica.list_classifiers("fitted") == []


async def test_a_model_is_not_asked_what_it_cannot_say(replica: Any) -> None:
    for model_id in ("labels", "fitted"):
        with pytest.raises(UnsupportedTaskError, match="find entities"):
            await replica.find_entities(model_id, [])
    for model_id in ("entities", "fitted"):
        with pytest.raises(UnsupportedTaskError, match="classify texts"):
            await replica.classify(model_id, [])
    for model_id in ("labels", "entities"):
        with pytest.raises(UnsupportedTaskError, match="fitted classifiers"):
            await replica.list_classifiers(model_id)
