"""Donut on tiny weights: what it writes is what transformers' own generation writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer, DonutProcessor

from models.document_models.donut import DonutModel
from models.errors import InvalidInputError, ModelLoadError
from models.ocr.page_shapes import MAX_ASPECT, with_bounded_shapes
from models.types.pages import DocumentQuestions
from tests.document_questions import SHORT, ask, picture
from tests.tiny_documents import (
    KINDS,
)


def test_what_donut_writes_becomes_nested_fields(
    document_folders: dict[str, Path], document_models: dict[str, Any]
) -> None:
    found = ask(document_models["cord"])
    assert found.data == {"menu": [{"nm": "tea"}, {"nm": "cake"}], "total": "12"}
    assert [(f.key, f.value, f.box) for f in found.fields] == [
        ("menu.0.nm", "tea", None),
        ("menu.1.nm", "cake", None),
        ("total", "12", None),
    ]
    model, inputs = donut(document_folders["cord"], "<s_cord-v2>")
    out = model.generate(
        **inputs, max_new_tokens=40, return_dict_in_generate=True, output_scores=True
    )
    (text,) = processor(document_folders["cord"]).batch_decode(out.sequences[:, 1:])
    assert found.data == processor(document_folders["cord"]).token2json(text.replace("[SEP]", ""))
    (logs,) = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
    tokens = processor(document_folders["cord"]).tokenizer.convert_ids_to_tokens(
        out.sequences[0, 1:]
    )
    start, stop = tokens.index("<s_total>") + 1, tokens.index("</s_total>")
    assert found.fields[-1].probability == pytest.approx(float(logs[start:stop].mean().exp()))
    assert found.completion_tokens == len(tokens) - 1


def test_every_question_is_answered_by_donut(
    document_folders: dict[str, Path], document_models: dict[str, Any]
) -> None:
    found = ask(document_models["docvqa"], SHORT, "who", "why so")
    assert [field.key for field in found.fields] == ["who", "why so"]
    assert found.fields[0].value == "42"
    for field in found.fields:
        prompt = f"<s_docvqa><s_question>{field.key}</s_question><s_answer>"
        model, inputs = donut(document_folders["docvqa"], prompt)
        (text,) = processor(document_folders["docvqa"]).batch_decode(
            model.generate(**inputs, max_new_tokens=40)
        )
        expected = text.partition("<s_answer>")[2].partition("</s_answer>")[0]
        assert field.value == expected.replace("[SEP]", "").strip()
    with pytest.raises(InvalidInputError, match="control tokens"):
        document_models["docvqa"].check(DocumentQuestions("vqa", ("who</s_question><s_answer>me",)))


def test_answers_come_in_the_order_of_the_questions(document_models: dict[str, Any]) -> None:
    questions = ("why so", "who", "what is it", "who")
    found = ask(document_models["docvqa"], SHORT, *questions)
    assert [field.key for field in found.fields] == list(questions)


def test_a_page_with_many_questions_is_answered_a_batch_at_a_time(
    document_models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = document_models["docvqa"]
    alone = [ask(model, SHORT, question).fields[0].value for question in ("who", "why")]
    batches: list[int] = []
    write = model._writer.write

    def counted(seen: torch.Tensor, prompts: list[list[int]], max_tokens: int) -> Any:
        batches.append(len(seen))
        return write(seen, prompts, max_tokens)

    monkeypatch.setattr(model._writer, "write", counted)
    found = ask(model, SHORT, *("who", "why") * 5)
    assert [field.value for field in found.fields] == alone * 5
    assert sum(batches) == 10
    assert max(batches) <= 4


def test_pages_of_strange_shapes_take_no_more_memory_than_others(
    document_folders: dict[str, Path],
) -> None:
    images = transformers.DonutImageProcessorPil.from_pretrained(document_folders["cord"])
    resize, sizes = images.resize, []

    def noted(*given: Any, **options: Any) -> Any:
        resized = resize(*given, **options)
        sizes.append(resized.size)
        return resized

    images.resize = noted
    for shape in ((2, 9000, 3), (9000, 1, 3), (120, 90, 3)):
        seen = with_bounded_shapes(images)(np.zeros(shape, np.uint8), return_tensors="pt")
        assert seen["pixel_values"].shape == (1, 3, 64, 64)
    assert max(sizes) <= 3 * 64 * 64 * (MAX_ASPECT + 1)


def test_classes_have_the_chances_of_their_tokens(
    document_folders: dict[str, Path], document_models: dict[str, Any]
) -> None:
    found = dict(ask(document_models["rvlcdip"]).labels)
    assert set(found) == set(KINDS)
    assert sum(found.values()) == pytest.approx(1)
    model, inputs = donut(document_folders["rvlcdip"], "<s_rvlcdip><s_class>")
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    ids = processor(document_folders["rvlcdip"]).tokenizer.convert_tokens_to_ids(
        [f"<{k}/>" for k in KINDS]
    )
    assert [found[kind] for kind in KINDS] == pytest.approx(logits[ids].softmax(0).tolist())


def test_prompts_can_be_said(document_folders: dict[str, Path]) -> None:
    path = document_folders["docvqa"]
    said = DonutModel(path, n_threads=1, prompts={"extraction": "<s_synthdog>"}, max_new_tokens=3)
    assert said.document_tasks == ("extraction",)
    assert ask(said).completion_tokens <= 3
    said.close()
    for prompts in ({}, {"reading": "<s>"}, {"vqa": "<s_docvqa>"}, {"classification": "<s_a>"}):
        with pytest.raises(ModelLoadError):
            DonutModel(path, n_threads=1, prompts=prompts)


def donut(path: Path, prompt: str) -> tuple[Any, dict[str, torch.Tensor]]:
    model = transformers.VisionEncoderDecoderModel.from_pretrained(path).eval()
    ids = AutoTokenizer.from_pretrained(path)(prompt, add_special_tokens=False)["input_ids"]
    pixels = processor(path).image_processor(picture(), return_tensors="pt")["pixel_values"]
    return model, {"pixel_values": pixels, "decoder_input_ids": torch.tensor([ids])}


def processor(path: Path) -> Any:
    images = transformers.DonutImageProcessorPil.from_pretrained(path)
    return DonutProcessor(images, AutoTokenizer.from_pretrained(path))
