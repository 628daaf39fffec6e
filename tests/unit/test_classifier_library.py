"""Classifiers fitted on embeddings: what they learn, what is stored, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression

from models.errors import (
    InvalidInputError,
    ModelError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
    StorageError,
)
from models.few_shot import classifier_library
from models.few_shot.classifier_library import HEAD_FILE, Classifiers
from models.few_shot.label_similarity import similarity_scores
from models.few_shot.linear_head import fit_head
from models.stores.artefacts import CURRENT, MANIFEST, ArtefactStore
from models.types.classification import (
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    LabelledVectors,
    LabelScores,
)

DIMENSIONS = 8
NONE = LabelledVectors((), np.zeros((0, DIMENSIONS), np.float32))
CENTRES = dict(zip("abcd", np.eye(DIMENSIONS), strict=False))


def vectors_of(*labels: str, seed: int = 0, spread: float = 0.1) -> Any:
    """A vector near the centre of each label, of any length."""
    random = np.random.default_rng(seed)
    rows = [CENTRES[label] + random.normal(0, spread, DIMENSIONS) for label in labels]
    return (np.stack(rows) * random.uniform(0.5, 2, (len(rows), 1))).astype(np.float32)


def labelled(*labels: str, seed: int = 0) -> LabelledVectors:
    return LabelledVectors(labels, vectors_of(*labels, seed=seed)) if labels else NONE


def fit(library: Classifiers, name: str = "mood", **options: Any) -> ClassifierInfo:
    fields: dict[str, Any] = {
        "base_model": "encoder",
        "fingerprint": "f1",
        "examples": labelled(*"aaabbbccc"),
        "descriptions": NONE,
    }
    return library.fit(ClassifierFitRequest(name=name, **fields | options))


def predict(library: Classifiers, vectors: Any, name: str = "mood", mark: str = "f1") -> Any:
    (result,) = library.predict([ClassifierRequest(name, mark, vectors)])
    if isinstance(result, ModelError):
        raise result
    assert isinstance(result, LabelScores)
    return result


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Classifiers]:
    classifiers = Classifiers(root=tmp_path / "store")
    yield classifiers
    classifiers.close()


@pytest.fixture
def again(library: Classifiers, tmp_path: Path) -> Classifiers:
    """Another replica on the same folder."""
    return Classifiers(root=tmp_path / "store")


# --- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["ab" * 4, "abc" * 4, "abcd" * 2])
def test_the_head_is_scikit_learns_logistic_regression(labels: str) -> None:
    examples = labelled(*labels)
    head = fit_head(examples, NONE)
    unit = examples.vectors / np.linalg.norm(examples.vectors, axis=1, keepdims=True)
    reference = LogisticRegression(C=10, class_weight="balanced", max_iter=500).fit(unit, [*labels])
    asked = vectors_of(*"abcdabcd", seed=1)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    np.testing.assert_allclose(head.scores(asked), reference.predict_proba(asked), atol=1e-5)
    assert (head.kind, head.labels) == ("logistic", tuple(sorted(set(labels))))


def test_the_length_of_a_vector_does_not_matter() -> None:
    head = fit_head(labelled(*"aabb"), NONE)
    asked = vectors_of(*"ab", seed=1)
    np.testing.assert_allclose(head.scores(asked), head.scores(asked * 7), atol=1e-6)


def test_one_example_per_label_is_enough() -> None:
    scores = fit_head(labelled(*"abc"), NONE).scores(vectors_of(*"cab", seed=1))
    assert [*scores.argmax(axis=1)] == [2, 0, 1]


def test_the_same_examples_fit_the_same() -> None:
    one, other = fit_head(labelled(*"aabbcc"), NONE), fit_head(labelled(*"aabbcc"), NONE)
    assert one.data() == other.data()


def test_a_label_without_examples_is_found_by_its_description() -> None:
    head = fit_head(labelled(*"aab"), LabelledVectors(("c", "a"), vectors_of("c", "a", seed=2)))
    assert (head.kind, head.labels) == ("similarity", ("a", "b", "c"))
    scores = head.scores(vectors_of(*"abc", seed=1))
    assert [*scores.argmax(axis=1)] == [0, 1, 2]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_descriptions_of_labels_with_examples_are_further_examples() -> None:
    head = fit_head(labelled(*"ab"), LabelledVectors(("a",), vectors_of("a", seed=2)))
    assert head.kind == "logistic"
    assert not np.allclose(head.weights, fit_head(labelled(*"ab"), NONE).weights)


def test_similarity_is_a_softmax_of_cosines() -> None:
    labels = np.array([[2, 0], [0, 3]], np.float32)
    cosines, scores = similarity_scores(np.array([[3, 4]], np.float32), labels)
    np.testing.assert_allclose(cosines, [[0.6, 0.8]], rtol=1e-6)
    first, second = math.exp(20 * 0.6), math.exp(20 * 0.8)
    expected = [[first / (first + second), second / (first + second)]]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("labels", ["a", "aaa", ""])
def test_one_label_is_no_classifier(labels: str) -> None:
    with pytest.raises(InvalidInputError):
        fit_head(labelled(*labels), NONE if labels else labelled("b"))


def test_too_many_labels_are_refused() -> None:
    many = LabelledVectors(tuple(map(str, range(257))), np.ones((257, 2), np.float32))
    with pytest.raises(InvalidInputError, match="256"):
        fit_head(many, LabelledVectors((), np.zeros((0, 2), np.float32)))


# --- the library -----------------------------------------------------------------------------


def test_what_a_fit_reports_is_what_is_stored(library: Classifiers, again: Classifiers) -> None:
    info = fit(library)
    assert (info.name, info.version, info.samples) == ("mood", 1, 9)
    assert (info.base_model, info.fingerprint, info.dimensions) == ("encoder", "f1", DIMENSIONS)
    assert (info.labels, info.head) == (("a", "b", "c"), "logistic")
    assert info.size_bytes > 3 * DIMENSIONS * 4
    assert info.created > 1_700_000_000
    assert library.get("mood") == again.get("mood") == info
    assert library.list() == again.list() == [info]


def test_any_replica_answers_the_same(library: Classifiers, again: Classifiers) -> None:
    fit(library)
    asked = vectors_of(*"abc", seed=1)
    mine, theirs = predict(library, asked), predict(again, asked)
    assert mine.labels == ("a", "b", "c")
    assert [*mine.scores.argmax(axis=1)] == [0, 1, 2]
    assert (mine.scores == theirs.scores).all()


def test_a_refit_is_seen_by_all_at_once(library: Classifiers, again: Classifiers) -> None:
    fit(library)
    asked = vectors_of(*"ab", seed=1)
    assert predict(again, asked).version == 1
    fit(library, examples=labelled(*"aabb"))
    found = predict(again, asked)
    assert (found.version, found.labels) == (2, ("a", "b"))
    assert len(library.list()) == 1


def test_latest_is_the_current_version(library: Classifiers) -> None:
    fit(library)
    asked = vectors_of("a")
    assert predict(library, asked, "mood-latest").version == 1
    assert library.get("mood-latest").name == "mood"
    fit(library, "mood-latest", examples=labelled(*"ab"))
    assert library.get("mood-latest").labels == ("a", "b")
    library.delete("mood-latest")
    assert library.get("mood-latest").labels == ("a", "b", "c")
    with pytest.raises(ModelNotFoundError):
        predict(library, asked, "other-latest")


def test_deleted_is_gone_everywhere(library: Classifiers, again: Classifiers) -> None:
    fit(library)
    predict(again, vectors_of("a"))
    library.delete("mood")
    for call in (library.get, again.get, again.delete):
        with pytest.raises(ModelNotFoundError):
            call("mood")
    with pytest.raises(ModelNotFoundError):
        predict(again, vectors_of("a"))


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a\n", "x" * 65, "ü", "a\x00"])
def test_names_that_could_be_paths_are_refused(library: Classifiers, name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        fit(library, name)
    assert caught.value.param == "model"
    for call in (library.get, library.delete):
        with pytest.raises(ModelNotFoundError):
            call(name)
    assert library.list() == []


def test_vectors_of_another_base_model_are_refused(library: Classifiers) -> None:
    fit(library)
    with pytest.raises(InvalidInputError, match=r"8 numbers.*now gives 4"):
        predict(library, np.ones((1, 4), np.float32))
    with pytest.raises(InvalidInputError, match="fit it again"):
        predict(library, vectors_of("a"), mark="f2")


def test_a_bad_request_fails_alone(library: Classifiers) -> None:
    fit(library)
    asked = vectors_of("a")
    good, gone, last = library.predict(
        [
            ClassifierRequest("mood", "f1", asked),
            ClassifierRequest("gone", "f1", asked),
            ClassifierRequest("mood", "f1", asked),
        ]
    )
    assert isinstance(gone, ModelNotFoundError)
    assert isinstance(good, LabelScores)
    assert isinstance(last, LabelScores)
    assert library.predict([]) == []


def test_a_bad_fit_keeps_what_was_there(library: Classifiers) -> None:
    before = fit(library)
    endless = LabelledVectors(("a", "b"), np.full((2, DIMENSIONS), np.nan, np.float32))
    for options in ({"examples": NONE}, {"examples": labelled("a")}, {"examples": endless}):
        with pytest.raises(ModelError):
            fit(library, **options)
    assert library.get("mood") == before


def test_too_many_fits_at_a_time_are_overload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Classifiers(root=tmp_path, max_fits=1)
    entered, gate = threading.Event(), threading.Event()

    def slow(*parts: LabelledVectors) -> Any:
        entered.set()
        assert gate.wait(30)
        return fit_head(*parts)

    monkeypatch.setattr(classifier_library, "fit_head", slow)
    thread = threading.Thread(target=fit, args=(library,))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(OverloadedError):
        fit(library, "other")
    gate.set()
    thread.join(30)
    assert library.get("mood").version == 1


def stored_folder(root: Path) -> Path:
    (folder,) = root.glob("store/models/*/*/")
    return folder


def test_nothing_stored_is_a_pickle(library: Classifiers, tmp_path: Path) -> None:
    fit(library)
    folder = stored_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, HEAD_FILE}
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["info"]["labels"] == ["a", "b", "c"]
    assert set(manifest["digests"]) == {HEAD_FILE}
    assert "scikit-learn" in manifest["libraries"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not tensors",
        save({"weights": np.zeros((2, DIMENSIONS), np.float32), "bias": np.zeros(3, np.float32)}),
        save({"weights": np.full((3, DIMENSIONS), np.inf, np.float32), "bias": np.zeros(3)}),
        save({"bias": np.zeros(3, np.float32)}),
    ],
)
def test_a_file_that_we_have_not_written_is_refused(
    library: Classifiers, data: bytes, again: Classifiers, tmp_path: Path
) -> None:
    fit(library)
    manifest = {"format": 1, "info": dataclasses.asdict(library.get("mood"))}
    ArtefactStore(tmp_path / "store").publish("mood", manifest, {HEAD_FILE: data})
    with pytest.raises(StorageError):
        predict(again, vectors_of("a"))


def test_a_changed_file_is_refused(
    library: Classifiers, again: Classifiers, tmp_path: Path
) -> None:
    fit(library)
    path = stored_folder(tmp_path) / HEAD_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError):
        predict(again, vectors_of("a"))


def test_broken_manifests_are_not_listed(library: Classifiers, tmp_path: Path) -> None:
    fit(library)
    mood = stored_folder(tmp_path).parent
    store = ArtefactStore(tmp_path / "store")
    store.publish("odd", {"format": 2}, {})
    store.publish("odder", {"format": 1, "info": {"name": "odder"}}, {})
    assert [info.name for info in library.list()] == ["mood"]
    with pytest.raises(StorageError):
        library.get("odd")
    (mood / CURRENT).write_text("{}")
    with pytest.raises(StorageError):
        library.get("mood")


def test_no_usable_root_is_a_load_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelLoadError):
        Classifiers(root=tmp_path / "file" / "store")
