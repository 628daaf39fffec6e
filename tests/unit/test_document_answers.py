"""Fields, answers and labels of documents: what the chat model is asked, and what is answered."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Callable
from math import log
from typing import Any

import pytest
from PIL import Image

from models.types.common import Usage
from models.types.generation import (
    ChatPrompt,
    ChoiceDelta,
    Delivery,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)
from models.types.pages import OcrResult, Page
from tests.fakes import FakeReplicas, make_client
from tests.pages import INVOICE, line, page
from tests.rendered_pages import encoded

IMAGE = base64.b64encode(encoded(Image.new("RGB", (8, 8), "white"))).decode()
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "string"}, "tea": {"type": "number"}},
    "required": ["number", "tea"],
}
SECOND = page(line("A letter about nothing", 50, 100))
Answer = Callable[[GenerationRequest], str]


class Chat:
    """A chat model that answers by a function, one token a character, each of probability 1/2."""

    def __init__(self, answer: Answer, finish: Any = "stop") -> None:
        self.asked: list[GenerationRequest] = []
        self._answer = answer
        self._finish = finish

    async def generate(
        self, session_id: str, call_id: str, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncGenerator[list[Delivery]]:
        self.asked += requests
        deltas = [self._delta(index, request) for index, request in enumerate(requests)]
        yield [Delivery(call_id, tuple(deltas))]

    def _delta(self, index: int, request: GenerationRequest) -> ChoiceDelta:
        text = self._answer(request)
        tokens = tuple(TokenLogprob(c, c.encode(), log(0.5)) for c in text)
        usage = Usage(10, len(text))
        return ChoiceDelta(index, TextDelta(text, tokens, self._finish, usage))


def post(chat: Chat, *pages: Page, path: str = "/v1/documents/extract", **body: Any) -> Any:
    left = list(pages)

    async def recognize(model_id: str, requests: list[Any]) -> list[OcrResult]:
        return [OcrResult(tuple(left.pop(0) for _ in request.images)) for request in requests]

    replicas = {
        "ocr": FakeReplicas({"recognize": recognize}),
        "generation": FakeReplicas(streams={"generate": chat.generate}),
    }
    return make_client(replicas).post(path, json=body)


def prompt_of(request: GenerationRequest) -> str:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt.messages[-1].content


def test_fields_have_values_places_and_confidences() -> None:
    chat = Chat(lambda _: '{"number": "2024-117", "tea": 5.0}')
    response = post(chat, INVOICE, images=[IMAGE], schema=SCHEMA)
    assert response.status_code == 200, response.text
    reply = response.json()
    (document,) = reply["data"]
    assert (reply["task"], reply["model"]) == ("extraction", "chat-model")
    assert document["data"] == {"number": "2024-117", "tea": 5.0}
    number, tea = document["fields"]
    assert number == {
        "key": "number",
        "value": "2024-117",
        "confidence": pytest.approx(0.45),
        "bbox": [pytest.approx(50 + 8 * 20), 100, 50 + 16 * 20, 140],
        "page": 0,
        "model_confidence": pytest.approx(0.5),
        "ocr_confidence": pytest.approx(0.9),
    }
    assert (tea["value"], tea["bbox"]) == (5.0, [500, 280, 540, 300])
    assert document["confidence"] == pytest.approx(0.45)
    assert reply["usage"] == {
        "documents_processed": 1,
        "pages_processed": 1,
        "prompt_tokens": 10,
        "completion_tokens": 34,
    }


def test_the_model_is_limited_to_the_schema_and_reads_the_pages() -> None:
    chat = Chat(lambda _: '{"number": "x", "tea": 1}')
    post(chat, INVOICE, images=[IMAGE], schema=SCHEMA, prompts=["Mind the tea."], max_tokens=99)
    (request,) = chat.asked
    assert request.output_format is not None
    assert request.output_format.kind == "json_schema"
    assert json.loads(request.output_format.definition) == SCHEMA
    assert (request.sampling.max_tokens, request.sampling.temperature) == (99, 0.0)
    assert request.sampling.logprobs == 0
    assert "| Coffee |  | 3.50 |" in prompt_of(request)
    assert "Mind the tea." in prompt_of(request)


def test_values_that_are_not_on_the_page_have_no_place() -> None:
    chat = Chat(lambda _: '{"number": "INV-1", "tea": null}')
    (document,) = post(chat, INVOICE, images=[IMAGE], schema=SCHEMA).json()["data"]
    assert [field["value"] for field in document["fields"]] == ["INV-1", None]
    for field in document["fields"]:
        assert (field["bbox"], field["page"], field["ocr_confidence"]) == (None, None, None)
        assert field["confidence"] == field["model_confidence"] == pytest.approx(0.5)


def test_without_a_schema_the_model_names_the_fields() -> None:
    chat = Chat(lambda _: '{"fields": [{"key": "Coffee", "value": "3.50"}]}')
    (document,) = post(chat, INVOICE, images=[IMAGE]).json()["data"]
    (field,) = document["fields"]
    assert (field["key"], field["value"]) == ("Coffee", "3.50")
    assert field["bbox"] == [500, 310, 540, 330]


def test_an_answer_that_was_cut_off_is_refused() -> None:
    chat = Chat(lambda _: '{"number": "20', finish="length")
    response = post(chat, INVOICE, images=[IMAGE], schema=SCHEMA)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "max_tokens"


def test_every_page_gets_its_question() -> None:
    def answer(request: GenerationRequest) -> str:
        return json.dumps({"answer": "Coffee" if "Item" in prompt_of(request) else "nothing"})

    chat = Chat(answer)
    body = {"images": [IMAGE, IMAGE], "task": "vqa"}
    reply = post(chat, INVOICE, SECOND, **body, prompts=["What costs 3.50?", "What of?"]).json()
    assert [prompt_of(r).splitlines()[-1] for r in chat.asked] == ["What costs 3.50?", "What of?"]
    assert [item["answer"] for item in reply["data"]] == ["Coffee", "nothing"]
    assert [(item["document"], item["page"]) for item in reply["data"]] == [(0, 0), (1, 0)]
    assert reply["data"][0]["bbox"] == [50, 310, 110, 330]
    assert reply["data"][1]["confidence"] == pytest.approx(0.5 * 0.9)
    chat = Chat(answer)
    post(chat, INVOICE, SECOND, **body, prompts=["What?"])
    assert [prompt_of(r).splitlines()[-1] for r in chat.asked] == ["What?", "What?"]


def test_every_page_gets_every_question() -> None:
    chat = Chat(lambda request: json.dumps({"answer": prompt_of(request).splitlines()[-1]}))
    body: dict[str, Any] = {"images": [IMAGE] * 2, "task": "vqa", "questions": ["What?", "Why?"]}
    data = post(chat, INVOICE, SECOND, **body).json()["data"]
    assert [(e["document"], e["question"], e["answer"]) for e in data] == [
        (0, "What?", "What?"),
        (0, "Why?", "Why?"),
        (1, "What?", "What?"),
        (1, "Why?", "Why?"),
    ]
    assert [entry["index"] for entry in data] == [0, 1, 2, 3]


def test_labels_get_the_probabilities_of_being_the_answer() -> None:
    def answer(request: GenerationRequest) -> str:
        assert request.output_format is not None
        assert request.output_format.kind == "choice"
        (label,) = json.loads(request.output_format.definition)
        return str(label)

    reply = post(
        Chat(answer), INVOICE, images=[IMAGE], task="classification", labels=["ab", "abc", "ab"]
    ).json()
    (item,) = reply["data"]
    assert item["classification"] == "ab"
    assert item["classification_scores"] == {
        "ab": pytest.approx(2 / 3),  # two tokens of 1/2 each against three
        "abc": pytest.approx(1 / 3),
    }
    assert item["confidence"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"images": [IMAGE], "prompts": ["a", "b"]}, "prompts"),
        ({"images": [IMAGE], "task": "vqa"}, "prompts"),
        ({"images": [IMAGE], "task": "classification", "labels": ["one", "one"]}, "labels"),
        ({"images": [IMAGE], "task": "translation"}, "task"),
        ({"images": [IMAGE], "model": "ocr-model"}, "model"),
        ({"images": [IMAGE], "ocr_model": "chat-model"}, "model"),
        ({}, "document"),
    ],
)
def test_bad_questions(body: dict[str, Any], param: str) -> None:
    chat = Chat(lambda _: "{}")
    response = post(chat, INVOICE, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not chat.asked


ANNOTATION = {
    "type": "json_schema",
    "json_schema": {"name": "invoice", "schema": SCHEMA, "strict": True},
}
DOCUMENT = {"type": "image_url", "image_url": f"data:image/png;base64,{IMAGE}"}


def test_a_document_is_annotated_in_mistrals_shape() -> None:
    chat = Chat(lambda _: '{"number": "2024-117", "tea": 5}')
    body = {"document": DOCUMENT, "document_annotation_format": ANNOTATION}
    prompt = "Only the head."
    reply = post(chat, INVOICE, path="/v1/ocr", **body, document_annotation_prompt=prompt).json()
    assert json.loads(reply["document_annotation"]) == {"number": "2024-117", "tea": 5}
    assert reply["pages"][0]["markdown"].startswith("# Invoice")
    assert prompt_of(chat.asked[0]).endswith(prompt)


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"format": "text"}, {"document": None, "images": [IMAGE]}]
)
def test_annotations_stand_in_whole_answers_only(more: dict[str, Any]) -> None:
    body = {"document": DOCUMENT, "document_annotation_format": ANNOTATION} | more
    response = post(Chat(lambda _: "{}"), INVOICE, path="/v1/ocr", **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "document_annotation_format"


def test_an_annotation_without_a_schema_is_refused() -> None:
    form = {"type": "json_schema"}
    body = {"document": DOCUMENT, "document_annotation_format": form}
    response = post(Chat(lambda _: "{}"), INVOICE, path="/v1/ocr", **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "document_annotation_format.json_schema"
