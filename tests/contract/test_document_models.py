"""What every document model does; its answers are transformers' own on the same weights."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any, get_args

import numpy as np
import pytest

from models.base import DocumentModel
from models.document_models.families import document_model
from models.errors import EngineDeadError, InvalidInputError, ModelLoadError, UnsupportedTaskError
from models.types.pages import DocumentQuestions, DocumentTask, PageQuestions
from tests.document_questions import LONG, SHORT, WAIT, answers, asked, picture
from tests.tiny_documents import (
    FAMILIES,
    HEADS,
)

LAYOUTS = [f"{family}-{head}" for family in FAMILIES for head in HEADS]


@pytest.mark.parametrize("name", ["cord", "docvqa", "rvlcdip", *LAYOUTS])
def test_pages_answered_together_are_answered_as_alone(
    document_models: dict[str, Any], name: str
) -> None:
    model = document_models[name]
    assert isinstance(model, DocumentModel)
    pages = [PageQuestions(asked(model), page, picture(n)) for n, page in enumerate((SHORT, LONG))]
    together = answers(model, *pages, pages[0])
    for page, answer in zip([*pages, pages[0]], together, strict=True):
        (alone,) = answers(model, page)
        assert [(f.key, f.value, f.box) for f in answer.fields] == [
            (f.key, f.value, f.box) for f in alone.fields
        ]
        ours = [*(f.probability for f in answer.fields), *(p for _, p in answer.labels)]
        theirs = [*(f.probability for f in alone.fields), *(p for _, p in alone.labels)]
        assert ours == pytest.approx(theirs, rel=1e-3)
        assert all(0 < probability <= 1 for probability in ours)
    assert model.submit([]).result(WAIT) == []


@pytest.mark.parametrize("name", ["cord", "docvqa", "rvlcdip", *LAYOUTS])
def test_other_tasks_are_refused_with_what_the_model_does(
    document_models: dict[str, Any], name: str
) -> None:
    model = document_models[name]
    (own,) = model.document_tasks
    for task in set(get_args(DocumentTask)) - {own}:
        with pytest.raises(UnsupportedTaskError, match=f"This model does {own}, not {task}"):
            model.check(DocumentQuestions(task, ("who",)))
    model.check(asked(model))


@pytest.mark.parametrize("name", ["docvqa", "layoutlm-QuestionAnswering"])
def test_bad_questions_are_refused(document_models: dict[str, Any], name: str) -> None:
    for question in ("", " ", "why " * 60):
        with pytest.raises(InvalidInputError) as error:
            document_models[name].check(DocumentQuestions("vqa", ("who", question)))
        assert error.value.param == "prompts"


@pytest.mark.parametrize("name", ["rvlcdip", "layoutlmv3-SequenceClassification"])
def test_the_weights_are_counted_and_close_is_final(
    document_folders: dict[str, Path], name: str
) -> None:
    model = document_model(document_folders[name], n_threads=1)
    size = (document_folders[name] / "model.safetensors").stat().st_size
    assert size * 0.9 < model.memory_bytes < size * 1.5
    assert model.alive
    model.close()
    model.close()
    assert not model.alive
    with pytest.raises(EngineDeadError):
        model.submit([PageQuestions(asked(model), SHORT, picture())])


def test_cancelled_pages_are_not_answered(
    document_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = document_model(document_folders["layoutlm-TokenClassification"], n_threads=1)
    started, go, answered = Event(), Event(), []
    answer = model._answer

    def slow(pages: list[PageQuestions]) -> Any:
        started.set()
        go.wait(WAIT)
        answered.append(len(pages))
        return answer(pages)

    monkeypatch.setattr(model, "_answer", slow)
    page = PageQuestions(asked(model), SHORT)
    first = model.submit([page])
    assert started.wait(WAIT)
    assert model.submit([page] * 9).cancel()
    last = model.submit([page])
    go.set()
    assert len(first.result(WAIT)) == len(last.result(WAIT)) == 1
    assert answered == [1, 1]
    model.close()


@pytest.mark.parametrize(
    ("model_type", "architecture", "reason"),
    [
        ("layoutlmv2", "LayoutLMv2ForTokenClassification", "detectron2"),
        ("layoutlm", "LayoutLMForMaskedLM", "no document model"),
        ("bert", "BertForTokenClassification", "no document model"),
    ],
)
def test_other_families_are_refused(
    tmp_path: Path, model_type: str, architecture: str, reason: str
) -> None:
    config = f'{{"model_type": "{model_type}", "architectures": ["{architecture}"]}}'
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelLoadError, match=reason):
        document_model(tmp_path, n_threads=1)


@pytest.mark.parametrize("name", ["cord", "layoutlmv3-QuestionAnswering"])
def test_pages_of_one_pixel_in_height_are_answered(
    document_models: dict[str, Any], name: str
) -> None:
    model = document_models[name]
    flat = np.zeros((1, 40, 3), np.uint8)
    assert len(answers(model, PageQuestions(asked(model), SHORT, flat))) == 1
